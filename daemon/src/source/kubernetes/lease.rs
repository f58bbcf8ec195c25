//! Who looks after what all nodes share: one of them at a time, by a Lease, so that not all do the same. Nothing depends on
//! there being only one: each change says what it has seen.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};

use super::whole;

/// Name of the Lease.
pub const NAME: &str = "bulkhead-identities";
/// How long one holds it without saying so again.
const TERM: Duration = Duration::from_secs(60);

/// One who wants to be it.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    /// What the Lease said, and since when it has said that, by our own clock: clocks of nodes differ.
    seen: Option<(Option<String>, Instant)>,
}

impl Candidate {
    /// Of this name, which no other has.
    pub fn new(client: Client, namespace: &str, name: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name, seen: None }
    }

    /// Whether it is this one now. To be asked several times in a term.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub async fn leads(&mut self) -> Result<bool, String> {
        let now = Instant::now();
        let Some(mut lease) = self.api.get_opt(NAME).await.map_err(|error| whole(&error))? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(NAME.to_owned());
            lease.spec = Some(self.spec());
            return won(self.api.create(&PostParams::default(), &lease).await.map(drop));
        };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        let version = lease.metadata.resource_version.clone();
        if !may_take(holder.as_deref(), &self.name, &mut self.seen, version, now) {
            return Ok(false);
        }
        lease.spec = Some(self.spec());
        // With the resourceVersion that was read: of several who try one succeeds.
        won(self.api.replace(NAME, &PostParams::default(), &lease).await.map(drop))
    }

    fn spec(&self) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: Some(TERM.as_secs() as i32),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}

/// Whether one may take it: it is his or nobody's, or has not been renewed for a term, as far as he has seen.
fn may_take(
    holder: Option<&str>,
    name: &str,
    seen: &mut Option<(Option<String>, Instant)>,
    version: Option<String>,
    now: Instant,
) -> bool {
    if holder.is_none_or(|holder| holder.is_empty() || holder == name) {
        return true;
    }
    match seen {
        Some((before, since)) if *before == version => now.saturating_duration_since(*since) > TERM,
        _ => {
            *seen = Some((version, now));
            false
        }
    }
}

fn won(written: kube::Result<()>) -> Result<bool, String> {
    match written {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(whole(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_it_has_not_been_renewed_for_a_term() {
        let begin = Instant::now();
        let mut seen = None;
        let mut may = |holder: Option<&str>, version: &str, after: u64| {
            let now = begin + Duration::from_secs(after);
            may_take(holder, "n1", &mut seen, Some(version.to_owned()), now)
        };
        assert!(may(None, "1", 0) && may(Some("n1"), "2", 0) && may(Some(""), "3", 0));
        assert!(!may(Some("n2"), "4", 1000), "seen for the first time, whatever it says of when");
        assert!(!may(Some("n2"), "4", 1060));
        assert!(may(Some("n2"), "4", 1061));
        assert!(!may(Some("n2"), "5", 1062), "renewed");
        assert!(!may(Some("n2"), "5", 1120));
        assert!(may(Some("n2"), "5", 1130));
    }
}
