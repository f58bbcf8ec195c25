//! Words of the command line that several commands share: durations, moments, pods and other
//! ends of a connection. Each refuses with a sentence that says what would be right.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost_types::Timestamp;

/// Units of a duration, with their length in milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A duration: `500ms`, `10s`, `1h30m`, `2d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write it like 500ms, 10s, 1h30m or 2d");
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*scale)).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(total)) }
}

/// A duration that is not zero.
pub(crate) fn deadline(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a deadline of zero would never be met; write 1s or more".to_owned()),
        duration => Ok(duration),
    }
}

/// A moment: so long ago, or a time by the clock.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Moment {
    /// `5m`: before now.
    Ago(Duration),
    /// `2026-01-02T03:04:05Z`.
    At(Timestamp),
}

impl Moment {
    /// `5m`, or RFC 3339.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ago) = duration(text) {
            return Ok(Self::Ago(ago));
        }
        // A date alone, or a time without a zone, would be taken as UTC without a word.
        let zoned = text.contains('T')
            && (text.ends_with('Z') || text.rsplit('T').next().is_some_and(|t| t.contains(['+', '-'])));
        match text.parse() {
            Ok(at) if zoned => Ok(Self::At(at)),
            _ => Err(format!("{text:?} is not a time; write 5m (ago) or 2026-01-02T03:04:05Z")),
        }
    }

    /// As a timestamp, seen from `now`.
    pub(crate) fn timestamp(&self, now: SystemTime) -> Timestamp {
        match self {
            Self::Ago(ago) => now.checked_sub(*ago).unwrap_or(UNIX_EPOCH).max(UNIX_EPOCH).into(),
            Self::At(at) => *at,
        }
    }
}

/// `namespace/name`.
pub(crate) fn namespaced(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok((namespace.to_owned(), name.to_owned())),
        _ => Err(format!("{text:?} does not name an object; write NAMESPACE/NAME, as in shop/web-0")),
    }
}

/// Whether `text` can name an object: an RFC 1123 subdomain, as Kubernetes wants it.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// One end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Party {
    /// `shop/web-0`
    Pod { namespace: String, name: String },
    /// `shop/Deployment/web`
    Workload { namespace: String, kind: String, name: String },
    /// `10.0.0.1`, `fd00::1`
    Ip(IpAddr),
}

impl Party {
    /// A pod, a workload or an address.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [namespace, name] if is_name(namespace) && is_name(name) => {
                Ok(Self::Pod { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            [namespace, kind, name] if is_name(namespace) && is_kind(kind) && is_name(name) => {
                Ok(Self::Workload { namespace: namespace.to_owned(), kind: kind.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!(
                "{text:?} is neither a pod (shop/web-0), nor a workload (shop/Deployment/web), nor an IP address"
            )),
        }
    }
}

/// Whether `text` can be the kind of an object: Deployment, StatefulSet.
fn is_kind(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The end a connection is made to, with its port if it is written behind: `shop/db-0:5432`,
/// `10.0.0.1:80`, `[fd00::1]:80`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) party: Party,
    pub(crate) port: Option<u16>,
}

impl Target {
    /// A party, perhaps with a port.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(party) = Party::parse(text) {
            return Ok(Self { party, port: None });
        }
        if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
            return Ok(Self { party: Party::Ip(socket.ip()), port: Some(port(&socket.port().to_string())?) });
        }
        match text.rsplit_once(':') {
            Some((party, number)) if !party.contains(':') => {
                Ok(Self { party: Party::parse(party)?, port: Some(port(number)?) })
            }
            _ => Party::parse(text).map(|party| Self { party, port: None }),
        }
    }
}

/// A port number, 1 to 65535.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a port; write a number from 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

/// A Kubernetes namespace.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} cannot be a namespace; write its name alone, as in shop"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_their_units() {
        for (text, ms) in [("0s", 0), ("500ms", 500), ("10s", 10_000), ("1h30m", 5_400_000), ("2d", 172_800_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "5x", "5 s", "-5s", "1.5s", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(text).is_err_and(|e| e.contains("1h30m")), "{text}");
        }
        assert!(deadline("0s").is_err());
    }

    #[test]
    fn moments_need_a_zone() {
        assert_eq!(Moment::parse("5m"), Ok(Moment::Ago(Duration::from_secs(300))));
        let at = Timestamp { seconds: 1_767_323_045, nanos: 500_000_000 };
        for text in ["2026-01-02T03:04:05.5Z", "2026-01-02T05:04:05.5+02:00", "2026-01-01T22:04:05.5-05:00"] {
            assert_eq!(Moment::parse(text), Ok(Moment::At(at)), "{text}");
        }
        for text in ["2026-01-02", "2026-01-02T03:04:05", "03:04", "yesterday", "2026-13-02T03:04:05Z", ""] {
            assert!(Moment::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_ago_is_seen_from_now() {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(Moment::Ago(Duration::from_secs(300)).timestamp(now).seconds, 700);
        assert_eq!(Moment::Ago(Duration::from_secs(3000)).timestamp(now).seconds, 0);
    }

    #[test]
    fn parties_are_pods_workloads_and_addresses() {
        let pod = Party::Pod { namespace: "shop".into(), name: "web-0".into() };
        let workload = Party::Workload { namespace: "shop".into(), kind: "Deployment".into(), name: "web".into() };
        assert_eq!(Party::parse("shop/web-0"), Ok(pod.clone()));
        assert_eq!(Party::parse("shop/Deployment/web"), Ok(workload));
        assert_eq!(Party::parse("fd00::1"), Ok(Party::Ip("fd00::1".parse().unwrap())));
        for text in ["", "web-0", "shop/", "/web", "shop/deployment/web", "shop/web/0/1", "Shop/web", "shop/web_0"] {
            assert!(Party::parse(text).is_err_and(|e| e.contains("shop/Deployment/web")), "{text}");
        }
        assert_eq!(Target::parse("shop/web-0:80"), Ok(Target { party: pod, port: Some(80) }));
    }

    #[test]
    fn a_target_may_carry_its_port() {
        for (text, ip, port) in [
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("fd00::1", "fd00::1", None),
            ("fd00::1:80", "fd00::1:80", None),
            ("[fd00::1]:80", "fd00::1", Some(80)),
        ] {
            let target = Target { party: Party::Ip(ip.parse().unwrap()), port };
            assert_eq!(Target::parse(text), Ok(target), "{text}");
        }
        for text in ["shop/web-0:", "shop/web-0:http", "shop/web-0:0", "10.0.0.1:0", "10.0.0.1:65536", ":80", "a:b:c"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
