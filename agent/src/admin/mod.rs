//! The admin socket: a Unix socket that answers one line of JSON with one line of JSON.
//!
//! The request is `{"command":"status"}`; the answer is a [`Status`]. The socket's mode is 0660:
//! who may read it may read the agent's numbers, and nothing can be changed through it.

pub mod http;
pub mod metrics;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use custody_config::shell::StopToken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::status::Status;

/// A request is at most so long.
const MAX_REQUEST_BYTES: usize = 4096;
/// A client that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers with the agent's status.
pub type Answer = Arc<dyn Fn() -> Status + Send + Sync>;

/// The listening socket; removes itself from the file system when dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("cannot remove {}: {error}", self.path.display());
        }
    }
}

impl AdminSocket {
    /// Binds the socket, replacing one that a killed agent left behind.
    ///
    /// # Errors
    /// The path cannot be used.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::other("there is a file that is not a socket")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until stopped, one client at a time: there is one question and it is cheap.
    pub async fn serve(self, answer: Answer, stop: StopToken) {
        loop {
            let accepted = tokio::select! {
                () = stop.stopped() => return,
                accepted = self.listener.accept() => accepted,
            };
            let served = match accepted {
                Ok((stream, _)) => tokio::time::timeout(PATIENCE, one(stream, &answer)).await,
                Err(error) => {
                    log::warn!("the admin socket cannot accept: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            match served {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::debug!("an admin client went away: {error}"),
                Err(_) => log::debug!("an admin client said nothing"),
            }
        }
    }
}

async fn one(mut stream: UnixStream, answer: &Answer) -> io::Result<()> {
    let request = read_line(&mut stream).await?;
    let asked: serde_json::Value = serde_json::from_slice(&request).unwrap_or_default();
    let mut text = match asked.get("command").and_then(|command| command.as_str()) {
        Some("status") => serde_json::to_vec(&answer())?,
        _ => br#"{"error":"unknown command; this agent knows: status"}"#.to_vec(),
    };
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.shutdown().await
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut part = [0_u8; 512];
    while !line.contains(&b'\n') && line.len() < MAX_REQUEST_BYTES {
        let count = stream.read(&mut part).await?;
        if count == 0 {
            break;
        }
        line.extend_from_slice(&part[..count]);
    }
    Ok(line)
}
