//! Counts what the CNI service is asked and how long it takes. Knows nothing of the requests
//! themselves: the service tells the verb, the code of its answer and the time.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// What a runtime can ask for. The labels are CNI's own names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CniVerb {
    /// A container gets an interface.
    Add,
    /// It loses it.
    Del,
    /// Is all as it was made?
    Check,
    /// Removal of what belongs to nobody.
    Gc,
    /// Could an ADD be served?
    Status,
}

impl CniVerb {
    /// Every verb.
    pub const ALL: [Self; 5] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status];

    /// Name as in CNI_COMMAND.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }
}

impl EncodeLabelValue for CniVerb {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Answered {
    verb: CniVerb,
    code: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Asked {
    verb: CniVerb,
}

/// Upper bounds of the histogram, seconds. A runtime gives up after minutes; an ADD takes
/// milliseconds.
const BOUNDS_S: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Counters of the CNI service. Clones count together.
#[derive(Clone, Debug)]
pub struct CniMetrics {
    requests: Family<Answered, Counter>,
    durations: Family<Asked, Histogram, fn() -> Histogram>,
}

impl Default for CniMetrics {
    /// Every verb is there from the start, with zero successes, so that a rate can be computed of
    /// the first one.
    fn default() -> Self {
        let new: fn() -> Histogram = || Histogram::new(BOUNDS_S);
        let metrics = Self { requests: Family::default(), durations: Family::new_with_constructor(new) };
        for verb in CniVerb::ALL {
            drop(metrics.requests.get_or_create(&Answered { verb, code: 0 }));
            drop(metrics.durations.get_or_create(&Asked { verb }));
        }
        metrics
    }
}

impl CniMetrics {
    /// A request was answered with `code` (0: success, else CNI's error code) after `took`.
    pub fn observe(&self, verb: CniVerb, code: u32, took: Duration) {
        self.requests.get_or_create(&Answered { verb, code }).inc();
        self.durations.get_or_create(&Asked { verb }).observe(took.as_secs_f64());
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let [(requests, requests_help), (duration, duration_help)] = Self::DECLARED;
        registry.register(requests, requests_help, self.requests.clone());
        registry.register_with_unit(duration, duration_help, Unit::Seconds, self.durations.clone());
    }

    /// Name without prefix, unit and suffix, and help.
    const DECLARED: [(&'static str, &'static str); 2] = [
        ("cni_requests", "Requests of the container runtime, by verb and CNI error code (0: success)"),
        ("cni_request_duration", "How long requests of the container runtime took, by verb"),
    ];
}
