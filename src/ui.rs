//! The printer, and what is drawn of events: bars on a terminal, plain lines elsewhere, or JSON lines.
//!
//! The only file that writes to standard output and standard error, and the only one that knows indicatif. What there is to
//! say is `status`'s business.

mod status;

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::status::{Status, plan_line};
use crate::event::{Event, Progress, Reporter, Sink};
use crate::text::{Printable, escaped_json, printable_lines};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// Bars on a terminal, plain lines elsewhere.
    Auto,
    /// Bars.
    Bars,
    /// A plain line now and then.
    Plain,
    /// Every event as a line of JSON.
    Json,
    /// Nothing but warnings.
    None,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorMode {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The styles of words on one stream.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    enabled: bool,
}

impl Palette {
    fn paint(self, style: Style, words: impl Display) -> String {
        if self.enabled { format!("{style}{words}{style:#}") } else { words.to_string() }
    }

    /// For what went well.
    pub fn good(self, words: impl Display) -> String {
        self.paint(AnsiColor::Green.on_default().bold(), words)
    }

    /// For what went wrong.
    pub fn bad(self, words: impl Display) -> String {
        self.paint(AnsiColor::Red.on_default().bold(), words)
    }

    /// For what somebody should look at.
    pub fn warning(self, words: impl Display) -> String {
        self.paint(AnsiColor::Yellow.on_default().bold(), words)
    }

    /// For what to do next.
    pub fn hint(self, words: impl Display) -> String {
        self.paint(AnsiColor::Cyan.on_default().bold(), words)
    }

    /// For what matters most.
    pub fn strong(self, words: impl Display) -> String {
        self.paint(Style::new().bold(), words)
    }
}

/// Writes to the two streams, above whatever bars there are.
#[derive(Clone, Debug)]
pub struct Printer {
    bars: MultiProgress,
    color: ColorMode,
}

impl Printer {
    /// A printer for this process.
    pub fn new(color: ColorMode) -> Self {
        Self { bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()), color }
    }

    fn palette(&self, choice: anstream::ColorChoice) -> Palette {
        let enabled = match self.color {
            ColorMode::Always => true,
            ColorMode::Never => false,
            ColorMode::Auto => choice != anstream::ColorChoice::Never,
        };
        Palette { enabled }
    }

    /// Styles for standard output.
    pub fn out(&self) -> Palette {
        self.palette(anstream::AutoStream::choice(&io::stdout()))
    }

    /// Styles for standard error.
    pub fn err(&self) -> Palette {
        self.palette(anstream::AutoStream::choice(&io::stderr()))
    }

    /// Writes a report to standard output.
    ///
    /// A reader that has gone away (`| head`) is no error: it has seen what it wanted.
    ///
    /// # Errors
    ///
    /// When it cannot be written whole.
    pub fn report(&self, text: &str) -> io::Result<()> {
        self.bars.suspend(|| self.stream(|out| out.write_all(text.as_bytes())))
    }

    /// Writes a document to standard output, as [`Self::report`] does, with nothing in it that a terminal would obey.
    ///
    /// # Errors
    ///
    /// When it cannot be written whole.
    pub fn document(&self, document: &serde_json::Value) -> io::Result<()> {
        self.report(&format!("{}\n", escaped_json(&format!("{document:#}"))))
    }

    /// Lets `write` write a report to standard output that is too long to be held in memory. Bars must be gone by then.
    ///
    /// # Errors
    ///
    /// When it cannot be written whole. That a reader has gone away is no error here either.
    pub fn stream(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut stdout = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
        match write(&mut stdout).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome,
        }
    }

    /// Lets `write` write a JSON document, as [`Self::stream`] does, with nothing in it that a terminal would obey.
    ///
    /// # Errors
    ///
    /// When it cannot be written whole.
    pub fn stream_document(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        self.stream(|out| write(&mut Escaping(out)))
    }

    /// Writes a line to standard error.
    pub fn line(&self, text: &str) {
        self.bars.suspend(|| {
            let _gone = writeln!(io::stderr().lock(), "{text}");
        });
    }

    /// Writes a message. It may hold what a file, a cache or a name on the command line says: nothing of it steers the terminal.
    fn message(&self, kind: &str, message: &str) {
        self.line(&format!("{kind}: {}", printable_lines(message)));
    }

    /// Writes a warning.
    pub fn warning(&self, message: &str) {
        self.message(&self.err().warning("warning"), message);
    }

    /// Writes an error and what to do next.
    pub fn error(&self, error: &crate::error::CommandError) {
        self.message(&self.err().bad("error"), &error.message);
        for hint in &error.hints {
            self.message(&self.err().hint("hint"), hint);
        }
    }

    /// Whether standard error is a terminal that bars make sense on.
    fn is_terminal() -> bool {
        io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }
}

/// Escapes what a terminal would obey in a JSON document. What is written at once ends with a whole character, as all text does.
struct Escaping<'a>(&'a mut dyn Write);

impl Write for Escaping<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(buffer) {
            Ok(text) => self.0.write_all(escaped_json(text).as_bytes())?,
            Err(_) => self.0.write_all(buffer)?,
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Lets `tracing` write its lines above the bars.
impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Printer {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        LogWriter { printer: self.clone(), buffer: Vec::new() }
    }
}

/// Gathers one log entry and prints it whole.
#[derive(Debug)]
pub struct LogWriter {
    printer: Printer,
    buffer: Vec<u8>,
}

impl Write for LogWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if !self.buffer.is_empty() {
            self.printer.line(printable_lines(&String::from_utf8_lossy(&self.buffer)).trim_end());
        }
    }
}

/// A watcher of one job: hand its [`Watch::reporter`] to the job, and drop it when the job is done.
pub struct Watch {
    sink: Arc<EventSink>,
    progress: Arc<Progress>,
    ticker: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Watch {
    /// Begins to watch.
    pub fn start(printer: &Printer, mode: ProgressMode) -> Self {
        let mode = match mode {
            ProgressMode::Auto if Printer::is_terminal() => ProgressMode::Bars,
            ProgressMode::Auto => ProgressMode::Plain,
            other => other,
        };
        let progress = Arc::new(Progress::default());
        let sink = Arc::new(EventSink {
            printer: printer.clone(),
            mode,
            status: Mutex::default(),
            warnings: Mutex::default(),
        });
        let ticker = match mode {
            ProgressMode::Bars => Some(start_bars(printer, &sink, &progress)),
            ProgressMode::Plain => Some(start_lines(&sink, &progress)),
            ProgressMode::Auto | ProgressMode::Json | ProgressMode::None => None,
        };
        Self { sink, progress, ticker }
    }

    /// What the job reports to.
    pub fn reporter(&self) -> Reporter {
        let sink: Arc<dyn Sink> = Arc::<EventSink>::clone(&self.sink);
        Reporter::new(sink, Arc::clone(&self.progress))
    }

    /// The warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        lock(&self.sink.warnings).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            // A ticker that panicked has drawn its last; there is nothing to add to that.
            let _panicked = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes events: keeps the status up to date, and says at once what cannot wait.
struct EventSink {
    printer: Printer,
    mode: ProgressMode,
    status: Mutex<Status>,
    warnings: Mutex<Vec<String>>,
}

impl Sink for EventSink {
    fn emit(&self, event: Event) {
        if let Event::Warning { message } = &event {
            lock(&self.warnings).push(message.clone());
        }
        if self.mode == ProgressMode::Json {
            if let Ok(line) = serde_json::to_string(&event) {
                self.printer.line(&escaped_json(&line));
            }
            return;
        }
        match &event {
            Event::Warning { message } => self.printer.warning(message),
            Event::Planned { .. } if self.mode != ProgressMode::None => self.printer.line(&plan_line(&event)),
            Event::PathFailed { path, error } => {
                self.printer.message(&self.printer.err().bad("failed"), &format!("{path}: {error}"));
            }
            _ => {}
        }
        lock(&self.status).take(event);
    }
}

/// How many paths under way are named below the bar.
const NAMED: usize = 3;

fn start_bars(
    printer: &Printer,
    sink: &Arc<EventSink>,
    progress: &Arc<Progress>,
) -> (mpsc::Sender<()>, JoinHandle<()>) {
    printer.bars.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    let plain =
        ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let with_bar = ProgressStyle::with_template("{spinner} [{bar:14}] {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    let main = printer.bars.add(ProgressBar::new(0).with_style(plain.clone()));
    let (sink, progress, bars) = (Arc::clone(sink), Arc::clone(progress), printer.bars.clone());
    tick(Duration::from_millis(100), move |is_last| {
        if is_last {
            main.finish_and_clear();
            bars.set_draw_target(ProgressDrawTarget::hidden());
            return;
        }
        let status = lock(&sink.status);
        // With the bar there is no room for the target, and the plan has just named it.
        let is_pushing = status.paths.1 > 0 && status.lookups.1 == 0;
        let mut message = if is_pushing { status.short(&progress) } else { status.line(&progress) };
        if is_pushing {
            main.set_style(with_bar.clone());
            let (length, position) = status.bar(&progress);
            main.set_length(length);
            main.set_position(position);
        } else {
            main.set_style(plain.clone());
        }
        if !status.current.is_empty() {
            let names: Vec<&str> =
                status.current.iter().take(NAMED).map(|path| path.get(33..).unwrap_or(path)).collect();
            // Last, because a narrow terminal cuts off the end.
            message.push_str(&format!(" · {}", names.join(", ")));
        }
        drop(status);
        main.set_message(Printable(&message).to_string());
        main.tick();
    })
}

/// A line after one second, and then ever more rarely: a log is read afterwards.
fn start_lines(sink: &Arc<EventSink>, progress: &Arc<Progress>) -> (mpsc::Sender<()>, JoinHandle<()>) {
    let (sink, progress) = (Arc::clone(sink), Arc::clone(progress));
    let started = Instant::now();
    let mut last = (started, String::new());
    tick(Duration::from_secs(1), move |is_last| {
        let elapsed = started.elapsed();
        let pause = match elapsed.as_secs() {
            0..10 => Duration::from_secs(1),
            10..120 => Duration::from_secs(5),
            _ => Duration::from_secs(30),
        };
        let line = lock(&sink.status).line(&progress);
        // A little early is on time: ticks are not exact.
        let is_due = last.0.elapsed() + Duration::from_millis(100) >= pause;
        if !is_last && is_due && !line.is_empty() && line != last.1 {
            sink.printer.line(&printable_lines(&line));
            last = (Instant::now(), line);
        }
    })
}

/// Calls `draw` again and again, and once more with true when the sender is dropped.
fn tick(every: Duration, mut draw: impl FnMut(bool) + Send + 'static) -> (mpsc::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            draw(false);
        }
        draw(true);
    });
    (stop, thread)
}
