//! Progress on stderr: a bar on a terminal, otherwise a line at each change of
//! state and every 10 s.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at};

use crate::cli::output::print_error;
use crate::reshard::status::JobStatus;

/// Time between two lines when nothing changes.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows a job until it ends.
pub async fn show(status: watch::Receiver<JobStatus>) {
    if io::stderr().is_terminal() {
        bar(status).await;
    } else {
        lines(status).await;
    }
}

async fn lines(mut status: watch::Receiver<JobStatus>) {
    let mut told = String::new();
    let mut tick = interval_at(Instant::now() + LINE_EVERY, LINE_EVERY);
    loop {
        let line = {
            let now = status.borrow_and_update();
            (format!("{} {}", now.state, now.doing), now.to_string())
        };
        if line.0 != told {
            print_error(&line.1);
            told = line.0;
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            _ = tick.tick() => told.clear(),
        }
    }
}

async fn bar(mut status: watch::Receiver<JobStatus>) {
    // indicatif leaves colours out when NO_COLOR is set.
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{spinner} [{bar:24}] {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    loop {
        {
            let now = status.borrow_and_update();
            let scanned: u64 = now.sources.iter().map(|source| source.keys_scanned).sum();
            let expected: u64 = now.sources.iter().map(|source| source.keys_hint).sum();
            bar.set_length(expected.max(scanned).max(1));
            bar.set_position(scanned);
            bar.set_message(now.to_string());
        }
        if status.changed().await.is_err() {
            break;
        }
    }
    bar.finish_and_clear();
}
