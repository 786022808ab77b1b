//! How far long work has come, on the terminal or in plain lines.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often who works looks up to tell how far it has come.
pub(crate) const REPORT_EVERY: Duration = Duration::from_millis(200);
/// Where no terminal is, a phase is told again after this time at the earliest.
const PLAIN_LINE_EVERY: Duration = Duration::from_secs(5);

/// Is told how far work has come, one phase after another.
pub trait Reporter: Send {
    /// A phase begins, of so many steps where that is known.
    fn begin(&mut self, phase: &str, total: Option<u64>);
    /// So many steps of the phase are done, all in all.
    fn advance(&mut self, done: u64);
    /// The phase is over.
    fn end(&mut self);
    /// Something worth a line has happened.
    fn line(&mut self, text: &str);
}

/// Says nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn begin(&mut self, _phase: &str, _total: Option<u64>) {}
    fn advance(&mut self, _done: u64) {}
    fn end(&mut self) {}
    fn line(&mut self, _text: &str) {}
}

/// Bars where stderr is a terminal, plain lines on stderr where it is not.
#[derive(Debug)]
pub struct TerminalReporter {
    is_terminal: bool,
    phase: Option<Phase>,
}

#[derive(Debug)]
struct Phase {
    name: String,
    total: Option<u64>,
    done: u64,
    begun: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Default for TerminalReporter {
    fn default() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), phase: None }
    }
}

impl Reporter for TerminalReporter {
    fn begin(&mut self, phase: &str, total: Option<u64>) {
        self.end();
        let now = Instant::now();
        let bar = self.is_terminal.then(|| bar(phase, total));
        self.phase =
            Some(Phase { name: phase.to_owned(), total, done: 0, begun: now, told: now, bar });
    }

    fn advance(&mut self, done: u64) {
        let Some(phase) = &mut self.phase else { return };
        phase.done = done;
        match &phase.bar {
            Some(bar) => bar.set_position(done),
            None if phase.told.elapsed() >= PLAIN_LINE_EVERY => {
                phase.told = Instant::now();
                let of = phase.total.map_or(String::new(), |total| format!(" of {total}"));
                eprintln!("{}: {done}{of}", phase.name);
            }
            None => {}
        }
    }

    fn end(&mut self) {
        let Some(phase) = self.phase.take() else { return };
        if let Some(bar) = phase.bar {
            bar.finish_and_clear();
        }
        let seconds = phase.begun.elapsed().as_secs_f64();
        match phase.done {
            // Work that does not come in steps.
            0 => eprintln!("{} in {seconds:.1} s", phase.name),
            done => eprintln!("{}: {done} in {seconds:.1} s", phase.name),
        }
    }

    fn line(&mut self, text: &str) {
        match self.phase.as_ref().and_then(|phase| phase.bar.as_ref()) {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}

impl Drop for TerminalReporter {
    /// Work that failed leaves no half bar behind.
    fn drop(&mut self) {
        if let Some(bar) = self.phase.take().and_then(|phase| phase.bar) {
            bar.finish_and_clear();
        }
    }
}

fn bar(phase: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg}: {wide_bar} {human_pos} of {human_len} ({per_sec}, {eta} left)",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}: {human_pos} ({per_sec})"),
    };
    // A template that indicatif refuses costs the looks, not the load.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(phase.to_owned())
}
