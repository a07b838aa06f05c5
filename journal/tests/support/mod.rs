//! A journald of the test's own.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running journald in namespaces of its own; it ends with this value.
#[derive(Debug)]
pub(crate) struct PrivateJournald {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    state: PathBuf,
}

impl PrivateJournald {
    /// Starts it with its journal in `state`; says why where it cannot run here.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(crate) fn start(state: &Path) -> Result<Self, String> {
        Self::start_with(state, "")
    }

    /// The same with lines for `journald.conf`.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(crate) fn start_with(state: &Path, settings: &str) -> Result<Self, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|above| above.join("journal/tests/support/private-journald.sh"))
            .find(|path| path.is_file())
            .ok_or("the checkout has no private-journald.sh")?;
        let mut child = Command::new("bash")
            .arg(script)
            .arg(state)
            .env("JOURNALD_SETTINGS", settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("bash cannot be run: {error}"))?;
        let input = child.stdin.take().ok_or("no input")?;
        let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        output.read_line(&mut line).map_err(|error| error.to_string())?;
        if line == "ready\n" {
            return Ok(Self { child, input, output, state: state.to_path_buf() });
        }
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            std::io::Read::read_to_string(&mut stderr, &mut said).map_err(|e| e.to_string())?;
        }
        child.wait().map_err(|error| error.to_string())?;
        Err(said.trim().to_owned())
    }

    /// Runs a line of shell in the namespaces; it must succeed. Gives back what it wrote.
    pub(crate) fn run(&mut self, line: &str) -> String {
        assert!(!line.contains('\n'), "one line");
        writeln!(self.input, "{line}").expect("the namespaces are there");
        let mut said = String::new();
        loop {
            let at = said.len();
            let read = self.output.read_line(&mut said).expect("text");
            assert!(read > 0, "ended within {line:?}: {said}");
            if let Some(code) = said[at..].strip_prefix("done ") {
                assert_eq!(code.trim(), "0", "{line:?} said: {said}");
                said.truncate(at);
                return said;
            }
        }
    }

    /// Sends an entry by the native protocol, any bytes in its values.
    pub(crate) fn send(&self, fields: &[(&str, &[u8])]) {
        let mut bytes = Vec::new();
        for (name, value) in fields {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'\n');
            let len = u64::try_from(value.len()).expect("a length");
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        let socket = UnixDatagram::unbound().expect("a socket");
        let path = format!("/proc/{}/root/run/systemd/journal/socket", self.inner_pid());
        socket.send_to(&bytes, path).expect("journald takes it");
    }

    /// A process in the namespaces, as the test sees it.
    fn inner_pid(&self) -> u32 {
        let outer = self.child.id();
        let path = format!("/proc/{outer}/task/{outer}/children");
        let children = std::fs::read_to_string(path).expect("the script's children");
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a child")
    }

    /// Everything sent so far is in the files.
    pub(crate) fn sync(&mut self) {
        self.run("journalctl --sync");
    }

    /// The folder of this machine's files.
    pub(crate) fn files_dir(&self) -> PathBuf {
        let id = std::fs::read_to_string(self.state.join(".machine-id")).expect("a machine id");
        self.state.join(id.trim())
    }
}

impl Drop for PrivateJournald {
    fn drop(&mut self) {
        // The script is the namespaces' parent: all ends with it.
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}
