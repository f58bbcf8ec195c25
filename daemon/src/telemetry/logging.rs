//! Sets logging up: lines for people or JSON, to stderr, filtered by target and level.

use std::{
    fmt,
    io::{self, IsTerminal},
    str::FromStr,
};

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for Format {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogError::Format(text.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No such form.
    #[error("log format {0:?} is unknown: use text or json")]
    Format(String),
    /// The filter cannot be read.
    #[error("log filter {filter:?}: {reason}; write a level, or target=level pairs, as in info,daemon::app=debug")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody has done so already.
    #[error("logging is set up already")]
    Twice,
}

/// Sets logging up for the whole process: to stderr, coloured if that is a terminal. `filter` has
/// the form `info,daemon::app=debug`.
///
/// # Errors
/// The filter cannot be read; or this was called before.
pub fn init(format: Format, filter: &str) -> Result<(), LogError> {
    let subscriber = subscriber(format, filter, io::stderr, io::stderr().is_terminal())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)
}

fn subscriber(
    format: Format,
    filter: &str,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
    colours: bool,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogError> {
    let refused = |reason: String| LogError::Filter { filter: filter.to_owned(), reason };
    if filter.trim().is_empty() {
        return Err(refused("it is empty".to_owned()));
    }
    let targets = EnvFilter::builder().parse(filter).map_err(|error| refused(error.to_string()))?;
    let builder = tracing_subscriber::fmt().with_env_filter(targets).with_writer(writer);
    Ok(match format {
        Format::Text => Box::new(builder.with_ansi(colours).finish()),
        Format::Json => Box::new(builder.json().flatten_event(true).finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, filter, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "daemon::app", namespace = "shop", pod = "web\u{1b}[2J", "Endpoint added");
            tracing::debug!(target: "daemon::net", "Link made");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_is_one_line_for_each_event_and_cannot_command_a_terminal() {
        let text = logged(Format::Text, "info");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("INFO") && text.contains("Endpoint added") && text.contains("namespace=\"shop\""));
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn json_has_fields_at_the_top() {
        let text = logged(Format::Json, "warn,daemon::app=info,daemon::net=debug");
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [added, made] = lines.as_slice() else { panic!("{text}") };
        assert_eq!((&added["message"], &added["namespace"]), (&"Endpoint added".into(), &"shop".into()));
        assert_eq!((&added["level"], &made["target"]), (&"INFO".into(), &"daemon::net".into()));
    }

    #[test]
    fn mistakes_are_named() {
        for (filter, wrong) in [("", "it is empty"), ("daemon=loud", "daemon=loud"), ("a=b=c", "a=b=c")] {
            let error = subscriber(Format::Text, filter, io::sink, false).err().unwrap().to_string();
            assert!(error.contains(wrong) && error.contains("target=level"), "{error}");
        }
        assert_eq!(
            "yaml".parse::<Format>().unwrap_err().to_string(),
            "log format \"yaml\" is unknown: use text or json"
        );
        for format in [Format::Text, Format::Json] {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        }
    }
}
