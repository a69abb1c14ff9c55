//! A line of the log as the original writes it:
//! `[2026-11-22 03:55:01.123] run.rs:123 text`. The time is UTC.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes such lines.
pub struct OriginalLines;

impl<S, N> FormatEvent<S, N> for OriginalLines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let file = metadata.file().unwrap_or_default();
        let file = Path::new(file).file_name().unwrap_or_default();
        let (file, line) = (file.to_string_lossy(), metadata.line().unwrap_or_default());
        write!(writer, "[{}] {file}:{line} ", now())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// The time as in a line.
pub fn now() -> String {
    // "2026-11-22T03:55:01.123Z"
    let text = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    text.replace('T', " ").replace('Z', "")
}
