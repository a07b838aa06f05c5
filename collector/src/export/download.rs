//! The file as an answer: whole, or a range of it, so that what broke off goes on.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncSeekExt, ReadBuf};

use super::{Row, wide};
use crate::query::problem::Problem;

const CHUNK_BYTES: usize = 64 * 1024;

/// An answer, and how many bytes of the file it sends; `None` where it sends none.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) sent: Option<u64>,
}

/// What of a file of this length is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Whole,
    /// First and last byte, both included.
    Range(u64, u64),
    Impossible,
}

/// A single range counts; several, or another unit, are answered with the whole (RFC 9110 §14.2).
fn asked(headers: &HeaderMap, tag: &str, len: u64) -> Asked {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(range) = text(header::RANGE) else { return Asked::Whole };
    if text(header::IF_RANGE).is_some_and(|known| known != tag) {
        return Asked::Whole;
    }
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Asked::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let found = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last),
        (Some(first), None) if last.trim().is_empty() => (first, u64::MAX),
        (None, Some(count)) if first.trim().is_empty() && count > 0 => {
            (len.saturating_sub(count), u64::MAX)
        }
        (None, Some(0)) if first.trim().is_empty() => return Asked::Impossible,
        _ => return Asked::Whole,
    };
    if found.0 >= len { Asked::Impossible } else { Asked::Range(found.0, found.1.min(len - 1)) }
}

/// `attachment` with the name, also where it is not ASCII (RFC 6266).
pub(super) fn disposition(name: &str) -> HeaderValue {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
        .collect();
    let mut coded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            coded.push(char::from(byte));
        } else {
            coded.push_str(&format!("%{byte:02X}"));
        }
    }
    let text = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{coded}");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

/// The answer to `GET …/download` of a complete export.
pub(super) async fn answer(headers: &HeaderMap, row: &Row, path: &Path) -> Result<Answer, Problem> {
    let len = row.told.bytes;
    let tag = format!("\"{}\"", row.told.sha256.as_deref().unwrap_or_default());
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag)) {
        let response = with_tag(StatusCode::NOT_MODIFIED.into_response(), &tag);
        return Ok(Answer { response, sent: None });
    }
    let (first, last, status) = match asked(headers, &tag, len) {
        Asked::Whole => (0, len.saturating_sub(1), StatusCode::OK),
        Asked::Range(first, last) => (first, last, StatusCode::PARTIAL_CONTENT),
        Asked::Impossible => {
            let mut response = Problem::range(format!("the file has {len} bytes")).into_response();
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{len}"));
            return Ok(Answer { response, sent: None });
        }
    };
    let left = if len == 0 { 0 } else { last - first + 1 };
    let file = open(path, first).await.map_err(|error| {
        log::error!(error:% = error, file:% = path.display(); "an export's file cannot be read");
        Problem::internal("the file cannot be read; the log says more")
    })?;
    let body = Body::new(FileBody { file, left });
    let mut response = with_tag((status, body).into_response(), &tag);
    if status == StatusCode::PARTIAL_CONTENT {
        set(&mut response, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{len}"));
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(row.spec.format.media_type()));
    headers.insert(header::CONTENT_DISPOSITION, disposition(&row.file_name()));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(Answer { response, sent: Some(left) })
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn with_tag(mut response: Response, tag: &str) -> Response {
    set(&mut response, header::ETAG, tag);
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::CACHE_CONTROL, "private, no-cache");
    response
}

async fn open(path: &Path, first: u64) -> std::io::Result<File> {
    let mut file = File::open(path).await?;
    file.seek(std::io::SeekFrom::Start(first)).await?;
    Ok(file)
}

/// So many bytes of a file, a chunk at a time.
struct FileBody {
    file: File,
    left: u64,
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let mut bytes = vec![0; room];
        let mut buffer = ReadBuf::new(&mut bytes);
        if let Err(error) = ready!(Pin::new(&mut self.file).poll_read(context, &mut buffer)) {
            return Poll::Ready(Some(Err(error)));
        }
        let count = buffer.filled().len();
        if count == 0 {
            let short =
                std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the file is cut off");
            return Poll::Ready(Some(Err(short)));
        }
        bytes.truncate(count);
        self.left -= wide(count);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_what_rfc_9110_says() {
        let of = |range: &str, if_range: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            if let Some(known) = if_range {
                headers.insert(header::IF_RANGE, known.parse().unwrap());
            }
            asked(&headers, "\"abc\"", 100)
        };
        for (range, expected) in [
            ("bytes=0-9", Asked::Range(0, 9)),
            ("bytes=90-", Asked::Range(90, 99)),
            ("bytes=-10", Asked::Range(90, 99)),
            ("bytes=-1000", Asked::Range(0, 99)),
            ("bytes=50-1000", Asked::Range(50, 99)),
            ("bytes=100-", Asked::Impossible),
            ("bytes=-0", Asked::Impossible),
            ("bytes=9-0", Asked::Whole),
            ("bytes=0-1,5-6", Asked::Whole),
            ("lines=0-1", Asked::Whole),
            ("bytes=x-", Asked::Whole),
        ] {
            assert_eq!(of(range, None), expected, "{range}");
        }
        assert_eq!(of("bytes=5-", Some("\"abc\"")), Asked::Range(5, 99));
        assert_eq!(of("bytes=5-", Some("\"other\"")), Asked::Whole, "another file begins anew");
    }

    #[test]
    fn a_name_cannot_end_the_header() {
        let value = disposition("a\"b\r\n管.csv");
        let text = value.to_str().unwrap();
        assert_eq!(
            text,
            "attachment; filename=\"a_b___.csv\"; filename*=UTF-8''a%22b%0D%0A%E7%AE%A1.csv"
        );
    }
}
