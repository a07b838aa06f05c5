//! The little of HTTP/1.1 (RFC 9112) that a measuring device on loopback needs: a client and a
//! server with kept connections, bodies by Content-Length or chunked. Bodies are bounded.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A body is at most so long: a page of 1,000 events of 60 KiB fits.
const MAX_BODY_BYTES: u64 = 64 * 1024 * 1024;
/// A line of the head is at most so long.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// Lines of a head, at most.
const MAX_LINES: usize = 100;
/// Nobody answers so late.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self { status, body: body.to_string().into_bytes() }
    }

    /// The body as JSON; null where it is none.
    pub(crate) fn value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// One kept connection to a server.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    token: Option<String>,
    connection: Option<BufReader<TcpStream>>,
    head: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, token: Option<String>) -> Self {
        Self { address, token, connection: None, head: Vec::new() }
    }

    /// Speaks for somebody else from now on.
    pub(crate) fn set_token(&mut self, token: Option<String>) {
        self.token = token;
    }

    /// GET.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Response> {
        self.send("GET", path, "", &[])
    }

    /// POST.
    pub(crate) fn post(
        &mut self,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> io::Result<Response> {
        self.send("POST", path, content_type, body)
    }

    /// As [`Self::post`] or [`Self::get`]. After an error the next call connects anew.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> io::Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        self.write_head(method, path, content_type, body.len())?;
        let stream = connection.get_mut();
        stream.write_all(&self.head)?;
        stream.write_all(body)?;
        let (response, keep) = read_response(&mut connection)?;
        if keep {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(BufReader::new(stream))
    }

    fn write_head(&mut self, method: &str, path: &str, kind: &str, len: usize) -> io::Result<()> {
        self.head.clear();
        write!(self.head, "{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address)?;
        if let Some(token) = &self.token {
            write!(self.head, "authorization: Bearer {token}\r\n")?;
        }
        if !kind.is_empty() {
            write!(self.head, "content-type: {kind}\r\ncontent-length: {len}\r\n")?;
        }
        self.head.extend_from_slice(b"\r\n");
        Ok(())
    }
}

fn read_response(from: &mut BufReader<TcpStream>) -> io::Result<(Response, bool)> {
    let first = read_line(from)?.ok_or_else(|| bad("the server closed the connection"))?;
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| bad(format!("not an HTTP answer: {first}")))?;
    let headers = Headers::read(from)?;
    let body = headers.body(from)?;
    Ok((Response { status, body }, !headers.close))
}

#[derive(Debug, Default)]
struct Headers {
    length: u64,
    chunked: bool,
    close: bool,
    token: Option<String>,
    content_type: String,
}

impl Headers {
    fn read(from: &mut BufReader<TcpStream>) -> io::Result<Self> {
        let mut headers = Self::default();
        for _ in 0..MAX_LINES {
            let line = read_line(from)?.ok_or_else(|| bad("the head ends early"))?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| bad(format!("no header: {line}")))?;
            headers.note(&name.to_ascii_lowercase(), value.trim())?;
        }
        Err(bad("too many headers"))
    }

    fn note(&mut self, name: &str, value: &str) -> io::Result<()> {
        match name {
            "content-length" => {
                self.length = value.parse().map_err(|_| bad(format!("content-length: {value}")))?;
            }
            "transfer-encoding" => self.chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => self.close = value.eq_ignore_ascii_case("close"),
            "authorization" => self.token = value.strip_prefix("Bearer ").map(str::to_owned),
            "content-type" => value.clone_into(&mut self.content_type),
            _ => {}
        }
        Ok(())
    }

    fn body(&self, from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if !self.chunked {
            read_exactly(from, self.length, &mut body)?;
            return Ok(body);
        }
        loop {
            let line = read_line(from)?.ok_or_else(|| bad("the body ends early"))?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                u64::from_str_radix(size, 16).map_err(|_| bad(format!("chunk size {size}")))?;
            read_exactly(from, size, &mut body)?;
            read_line(from)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

fn read_exactly(from: &mut BufReader<TcpStream>, len: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if len.saturating_add(crate::numbers::len(body.len())) > MAX_BODY_BYTES {
        return Err(bad("the body is too long"));
    }
    let read = from.take(len).read_to_end(body)?;
    if crate::numbers::len(read) == len { Ok(()) } else { Err(bad("the body ends early")) }
}

/// `None` at the end of the connection.
fn read_line(from: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = String::new();
    from.take(MAX_LINE_BYTES).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(text) => Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned())),
        None if line.is_empty() => Ok(None),
        None => Err(bad("a line of the head is too long or cut")),
    }
}

/// Answers one request.
pub(crate) type Handler = Arc<dyn Fn(Request) -> Response + Send + Sync>;
/// Makes the handler of one connection.
pub(crate) type Handlers = Arc<dyn Fn() -> Handler + Send + Sync>;

/// A server on loopback, one thread a connection. Dropped, it takes no more connections.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Listens on a free port.
    pub(crate) fn start(handlers: Handlers) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(stream) = stream {
                    let handler = handlers();
                    let stopped = Arc::clone(&stopped);
                    std::thread::spawn(move || serve(stream, &handler, &stopped));
                }
            }
        });
        Ok(Self { address, stop })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener; if it does not, it ends with the process.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_millis(200)));
    }
}

/// The client sees a broken connection where this ends with an error, and comes again.
fn serve(stream: TcpStream, handler: &Handler, stopped: &AtomicBool) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut connection = BufReader::new(stream);
    while let Ok(Some(request)) = read_request(&mut connection) {
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        let response = handler(request);
        let head = format!(
            "HTTP/1.1 {} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            response.status,
            response.body.len()
        );
        let mut answer = head.into_bytes();
        answer.extend_from_slice(&response.body);
        if connection.get_mut().write_all(&answer).is_err() {
            return;
        }
    }
}

fn read_request(from: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let Some(first) = read_line(from)? else { return Ok(None) };
    let mut words = first.split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(bad(format!("not an HTTP request: {first}")));
    };
    let headers = Headers::read(from)?;
    let body = headers.body(from)?;
    Ok(Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        token: headers.token,
        content_type: headers.content_type,
        body,
    }))
}

/// A value of a query string (RFC 3986: everything but unreserved characters escaped).
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Server {
        let handler: Handler = Arc::new(|request| {
            let said = serde_json::json!({
                "method": request.method, "path": request.path, "token": request.token, "len": request.body.len()
            });
            Response::json(if request.path == "/no" { 404 } else { 200 }, &said)
        });
        Server::start(Arc::new(move || Arc::clone(&handler))).unwrap()
    }

    #[test]
    fn one_connection_carries_many_requests() {
        let server = echo();
        let mut client = Client::new(server.address, Some("t".to_owned()));
        for len in [0_usize, 1, 100_000] {
            let answer = client.post("/x", "text/plain", &vec![b'a'; len]).unwrap();
            assert_eq!(answer.status, 200);
            assert_eq!(answer.value()["len"], len);
            assert_eq!(answer.value()["token"], "t");
        }
        assert_eq!(client.get("/no").unwrap().status, 404);
    }

    #[test]
    fn chunked_answers_are_read() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
            stream.write_all(text.as_bytes()).unwrap();
        });
        let answer = Client::new(address, None).get("/").unwrap();
        served.join().unwrap();
        assert_eq!(answer.body, b"abcde");
    }

    #[test]
    fn search_lines_are_escaped() {
        assert_eq!(escape("ip:10.0.0.0/8 \"a b\""), "ip%3A10.0.0.0%2F8%20%22a%20b%22");
    }
}
