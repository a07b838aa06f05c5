//! `preview --follow` with linemux: a person looks on, so a line lost at a rotation does no harm.
//! Nothing durable ever reads this way (docs/decisions say why).

use std::io::Write;
use std::path::Path;

use custody_event::Offset;
use linemux::MuxedLines;

use super::preview::Previewer;

/// Shows what is appended until interrupted.
pub(super) fn follow(
    file: &Path,
    from: u64,
    previewer: &mut Previewer,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut lines = MuxedLines::new()?;
        lines.add_file(file).await?;
        let mut offset = Offset(from);
        loop {
            let line = tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(()),
                line = lines.next_line() => line?,
            };
            let Some(line) = line else { return Ok(()) };
            let text = line.line().as_bytes();
            previewer.show(text, offset, out)?;
            offset = offset.plus(u64::try_from(text.len())? + 1);
            out.flush()?;
        }
    })
}
