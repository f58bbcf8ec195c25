//! Flags, checked: what the rest of the daemon relies on.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    num::NonZeroUsize,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use flows::redact::Redaction;
use ipnetwork::IpNetwork;

use crate::{
    args::{Attach, LogFormat, Places, PodDevice, Routing, RunArgs, Runtime},
    datapath::load::{Capacities, LoadError},
    flow_api::{FlowApi, FlowApiError},
    ipam::{PoolError, Pools},
    net::overlay::Protocol,
};

/// Everything `run` needs to know.
#[derive(Debug)]
pub struct Config {
    /// Where objects come from.
    pub objects: Objects,
    /// As given to `--source`.
    pub source: String,
    /// Sockets.
    pub run_dir: PathBuf,
    /// Records.
    pub state_dir: PathBuf,
    /// Pins.
    pub pin_dir: PathBuf,
    /// Masquerade table.
    pub nft_table: String,
    /// Ranges of pods' addresses; `None` in a cluster whose Node object says them.
    pub ranges: Option<Vec<IpNetwork>>,
    /// Where the plugin and its configuration are to be put; `None`: nowhere.
    pub install: Option<Install>,
    /// This node.
    pub node_name: String,
    /// Its cluster.
    pub cluster_name: String,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// `None`: packets to other nodes' pods go as they are.
    pub overlay: Option<Overlay>,
    /// MTU in bytes; 0: to be found out.
    pub mtu: u32,
    /// `None`: no masquerade. Else the ranges outside the pools that stay as they are.
    pub masquerade: Option<Vec<IpNetwork>>,
    /// How to attach.
    pub attach: Attach,
    /// What links new pods to the node.
    pub pod_device: PodDevice,
    /// Where packets from outside are looked at first.
    pub uplinks: Uplinks,
    /// Says whose packets are dropped there.
    pub deny_list: Option<PathBuf>,
    /// Sizes of maps.
    pub capacities: Capacities,
    /// What makes an identity.
    pub identity: policy::identity::Config,
    /// Size of the ring of records.
    pub flow_records: NonZeroUsize,
    /// What records do not tell.
    pub redaction: Redaction,
    /// Says where records are exported to.
    pub exporters: Option<PathBuf>,
    /// How records are kept on disk; `None`: they are not.
    pub history: Option<history::Settings>,
    /// Where other machines read flows.
    pub flow_api: Option<FlowApi>,
    /// How often long connections are reported.
    pub active_interval: Duration,
    /// How often dead sandboxes are looked for.
    pub gc_interval: Duration,
    /// How long nobody must have had an identity's number before it may stand for another.
    pub identity_grace: Duration,
    /// How long no pod of the cluster has a number that all nodes share before it is removed.
    pub shared_identity_grace: Duration,
    /// Where the agents' Lease is.
    pub agent_namespace: String,
    /// Log format.
    pub log_format: LogFormat,
    /// Log filter.
    pub log: String,
}

/// The overlay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overlay {
    /// What packets are wrapped in.
    pub protocol: Protocol,
    /// UDP port, not 0.
    pub port: u16,
}

impl Overlay {
    /// `port`: 0 is the protocol's own.
    fn new(protocol: Protocol, port: u16) -> Self {
        Self { protocol, port: if port == 0 { protocol.port() } else { port } }
    }
}

/// Interfaces at which packets from outside are looked at before the network stack sees them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Uplinks {
    /// Nowhere.
    None,
    /// Those of the default routes.
    Auto,
    /// These.
    Named(BTreeSet<String>),
}

impl Uplinks {
    fn new(given: &[String], deny_list: Option<&Path>) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::Uplink(given.join(","));
        match given {
            [] => Ok(if deny_list.is_some() { Self::Auto } else { Self::None }),
            [one] if one == "auto" => Ok(Self::Auto),
            [one] if one == "none" && deny_list.is_none() => Ok(Self::None),
            [one] if one == "none" => Err(ConfigError::DenyListNowhere),
            names if names.iter().all(|name| is_interface(name)) => Ok(Self::Named(names.iter().cloned().collect())),
            _ => Err(wrong()),
        }
    }
}

/// Whether an interface can be called so (`dev_valid_name`, net/core/dev.c; the two words mean something else here).
fn is_interface(name: &str) -> bool {
    !matches!(name, "" | "." | ".." | "auto" | "none")
        && name.len() < 16
        && !name.contains(|it: char| it == '/' || it == ':' || it.is_whitespace())
}

/// Where objects come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Objects {
    /// A folder of files.
    Directory(PathBuf),
    /// An API server.
    Kubernetes {
        /// Says where it is and who we are; `None`: what a pod is given.
        kubeconfig: Option<PathBuf>,
        /// Reached at this URL instead.
        server: Option<http::Uri>,
    },
}

/// Where a container runtime looks for plugins and networks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Install {
    /// Programs.
    pub bin_dir: PathBuf,
    /// Configurations.
    pub conf_dir: PathBuf,
}

impl From<&Runtime> for Install {
    fn from(runtime: &Runtime) -> Self {
        let Runtime { cni_bin_dir, cni_conf_dir } = runtime;
        Self { bin_dir: cni_bin_dir.clone(), conf_dir: cni_conf_dir.clone() }
    }
}

/// Ranges of pods' addresses outside of a cluster, when none are given.
pub const DEFAULT_RANGES: [&str; 2] = ["10.244.0.0/24", "fd00:10:244::/64"];

/// How much of the flow history a power cut may take.
const HISTORY_SYNC: Duration = Duration::from_secs(1);
/// Pauses between two looks for dead sandboxes that make sense, in seconds: up to a day.
const GC_INTERVALS: RangeInclusive<u64> = 1..=86_400;
/// Graces of identities' numbers that make sense, in seconds: more than any event is late, and up to a day.
const IDENTITY_GRACES: RangeInclusive<u64> = 1..=86_400;

/// What is wrong with the flags.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Unknown source.
    #[error("--source {0:?}: want directory:PATH, for example directory:/etc/bulkhead/objects, or kubernetes")]
    Source(String),
    /// A URL that is none, or of no use.
    #[error(
        "--kubernetes-server {0:?}: want a URL, for example https://192.0.2.1:6443, together with --source kubernetes"
    )]
    Server(String),
    /// A pool that cannot be.
    #[error("--pool: {0}")]
    Pool(#[from] PoolError),
    /// A capacity that cannot be.
    #[error("--map-capacity: {0}")]
    Capacity(#[from] LoadError),
    /// Names that no interfaces have.
    #[error("--uplink {0:?}: want auto, none, or names of interfaces, for example eth0,eth1")]
    Uplink(String),
    /// A list without a place where it is looked at.
    #[error("--deny-list together with --uplink none: nobody looks at packets there; leave one of them out")]
    DenyListNowhere,
    /// Not `NAME=NUMBER`.
    #[error("--map-capacity {0:?}: want MAP=ENTRIES, for example CONNTRACK=262144")]
    CapacitySyntax(String),
    /// A pattern that hides nothing.
    #[error("--redact-labels, --redact-names: {0}")]
    Redaction(#[from] flows::redact::Useless),
    /// No name for this node.
    #[error("--node-name: the host has no name; give one")]
    NodeName,
    /// Zero where something is needed.
    #[error("{0}: must be at least 1")]
    Zero(&'static str),
    /// A flow API that cannot be.
    #[error(transparent)]
    FlowApi(#[from] FlowApiError),
    /// An MTU that no packet fits.
    #[error("--mtu {0}: IPv6 needs 1280 bytes at least (RFC 8200, section 5), and 65535 are the most")]
    Mtu(u32),
    /// A pause that is none, or longer than a day.
    #[error("--gc-interval {0}: want seconds from {least} to {most}", least = GC_INTERVALS.start(), most = GC_INTERVALS.end())]
    GcInterval(u64),
    /// The same for numbers that all nodes share.
    #[error("--shared-identity-grace {0}: want seconds from {least} to {most}", least = IDENTITY_GRACES.start(), most = IDENTITY_GRACES.end())]
    SharedIdentityGrace(u64),
    /// A grace that is none, or longer than a day.
    #[error("--identity-grace {0}: want seconds from {least} to {most}", least = IDENTITY_GRACES.start(), most = IDENTITY_GRACES.end())]
    IdentityGrace(u64),
    /// A path that is not absolute.
    #[error("{flag} {path}: want an absolute path")]
    Relative {
        /// Which flag.
        flag: &'static str,
        /// What it was.
        path: PathBuf,
    },
}

impl TryFrom<&RunArgs> for Config {
    type Error = ConfigError;

    fn try_from(args: &RunArgs) -> Result<Self, ConfigError> {
        let RunArgs {
            source,
            kubernetes_server,
            places: Places { run_dir, state_dir, pin_dir, nft_table, pools: ranges },
            install,
            runtime,
            node_name,
            cluster_name,
            metrics,
            routing,
            overlay_protocol,
            overlay_port,
            mtu,
            masquerade,
            no_masquerade,
            attach,
            pod_device,
            uplink,
            deny_list,
            map_capacity,
            dns_ports,
            excluded_labels,
            redact_labels,
            redact_names,
            flow_records,
            exporters,
            history_dir,
            history_max_age,
            history_max_mebibytes,
            flow_listen,
            flow_tls,
            flow_plaintext,
            active_interval,
            gc_interval,
            identity_grace,
            shared_identity_grace,
            agent_namespace,
            log_format,
            log,
        } = args;
        let objects = objects(source, kubernetes_server.as_deref())?;
        let ranges = match (ranges.as_slice(), &objects) {
            ([], Objects::Kubernetes { .. }) => None,
            ([], Objects::Directory(_)) => Some(default_ranges()),
            (given, _) => Some(given.to_vec()),
        };
        // What is wrong with them is told before anything is done.
        if let Some(ranges) = &ranges {
            Pools::new(ranges)?;
        }
        let mut capacities = Capacities::default();
        for setting in map_capacity {
            let syntax = || ConfigError::CapacitySyntax(setting.clone());
            let (map, entries) = setting.split_once('=').ok_or_else(syntax)?;
            capacities.set(map, entries.parse().map_err(|_| syntax())?)?;
        }
        capacities.listen_to_dns(dns_ports.0);
        if *mtu != 0 && !(1280..=65_535).contains(mtu) {
            return Err(ConfigError::Mtu(*mtu));
        }
        let Runtime { cni_bin_dir, cni_conf_dir } = runtime;
        let folders = [
            ("--run-dir", run_dir),
            ("--state-dir", state_dir),
            ("--pin-dir", pin_dir),
            ("--history-dir", history_dir.as_ref().unwrap_or(state_dir)),
            ("--cni-bin-dir", cni_bin_dir),
            ("--cni-conf-dir", cni_conf_dir),
        ];
        for (flag, path) in folders.into_iter().chain(flow_tls.iter().map(|folder| ("--flow-tls", folder))) {
            if !path.is_absolute() {
                return Err(ConfigError::Relative { flag, path: path.clone() });
            }
        }
        if *active_interval == 0 {
            return Err(ConfigError::Zero("--active-interval"));
        }
        if !GC_INTERVALS.contains(gc_interval) {
            return Err(ConfigError::GcInterval(*gc_interval));
        }
        if !IDENTITY_GRACES.contains(identity_grace) {
            return Err(ConfigError::IdentityGrace(*identity_grace));
        }
        if !IDENTITY_GRACES.contains(shared_identity_grace) {
            return Err(ConfigError::SharedIdentityGrace(*shared_identity_grace));
        }
        let identity = match excluded_labels {
            Some(keys) => policy::identity::Config { excluded_labels: keys.iter().cloned().collect() },
            None => policy::identity::Config::default(),
        };
        Ok(Self {
            objects,
            source: source.clone(),
            run_dir: run_dir.clone(),
            state_dir: state_dir.clone(),
            pin_dir: pin_dir.clone(),
            nft_table: nft_table.clone(),
            ranges,
            install: install.then(|| Install::from(runtime)),
            node_name: node_name.clone().or_else(host_name).ok_or(ConfigError::NodeName)?,
            cluster_name: cluster_name.clone(),
            metrics: metrics.0,
            overlay: (*routing == Routing::Overlay).then(|| Overlay::new((*overlay_protocol).into(), *overlay_port)),
            mtu: *mtu,
            masquerade: masquerade.then(|| no_masquerade.clone()),
            attach: *attach,
            pod_device: *pod_device,
            uplinks: Uplinks::new(uplink, deny_list.as_deref())?,
            deny_list: deny_list.clone(),
            capacities,
            identity,
            flow_records: NonZeroUsize::new(*flow_records).ok_or(ConfigError::Zero("--flow-records"))?,
            redaction: Redaction::new(redact_labels, redact_names)?,
            exporters: exporters.clone(),
            history: (*history_max_mebibytes > 0).then(|| history::Settings {
                folder: history_dir.clone().unwrap_or_else(|| state_dir.join("history")),
                limits: history::Limits {
                    max_bytes: history_max_mebibytes.saturating_mul(1 << 20),
                    max_age: *history_max_age,
                },
                sync_every: HISTORY_SYNC,
            }),
            flow_api: FlowApi::new(flow_listen.0, flow_tls.as_deref(), *flow_plaintext)?,
            active_interval: Duration::from_secs(*active_interval),
            gc_interval: Duration::from_secs(*gc_interval),
            identity_grace: Duration::from_secs(*identity_grace),
            shared_identity_grace: Duration::from_secs(*shared_identity_grace),
            agent_namespace: agent_namespace.clone(),
            log_format: *log_format,
            log: log.clone(),
        })
    }
}

impl Config {
    /// Socket of the CNI plugin.
    pub fn cni_socket(&self) -> PathBuf {
        cni_socket(&self.run_dir)
    }

    /// Socket of the API.
    pub fn api_socket(&self) -> PathBuf {
        self.run_dir.join("api.sock")
    }
}

/// Socket of the CNI plugin below a run folder.
pub fn cni_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("cni.sock")
}

/// [`DEFAULT_RANGES`], parsed.
pub fn default_ranges() -> Vec<IpNetwork> {
    DEFAULT_RANGES.iter().map(|range| range.parse().expect("a constant is a range")).collect()
}

fn objects(source: &str, server: Option<&str>) -> Result<Objects, ConfigError> {
    let wrong = || ConfigError::Source(source.to_owned());
    let kubeconfig = match source.split_once(':') {
        None if source == "kubernetes" => None,
        Some((_, "")) | None => return Err(wrong()),
        Some(("kubernetes", path)) => Some(PathBuf::from(path)),
        Some(("directory", path)) if server.is_none() => return Ok(Objects::Directory(PathBuf::from(path))),
        Some(("directory", _)) => return Err(ConfigError::Server(server.unwrap_or_default().to_owned())),
        Some(_) => return Err(wrong()),
    };
    let server = match server {
        None => None,
        Some(text) => {
            let uri: http::Uri = text.parse().map_err(|_| ConfigError::Server(text.to_owned()))?;
            if uri.scheme().is_none() || uri.host().is_none() {
                return Err(ConfigError::Server(text.to_owned()));
            }
            Some(uri)
        }
    };
    Ok(Objects::Kubernetes { kubeconfig, server })
}

fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

    /// What becomes of these flags of `run`.
    fn config(flags: &[&str]) -> Result<Config, ConfigError> {
        let source = ["bulkhead-daemon", "run", "--source=directory:/o", "--node-name=n1"];
        let args = Args::try_parse_from(source.iter().chain(flags)).unwrap();
        match args.command {
            Command::Run(args) => Config::try_from(&*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_flow_api_is_for_nobody_by_mistake() {
        let of = |flags: &[&str]| config(flags).map(|config| config.flow_api);
        assert_eq!(of(&[]).unwrap(), None);
        let found = of(&["--flow-listen=[::]:4244", "--flow-tls=/c"]).unwrap().expect("it listens");
        assert_eq!(found.tls.map(|tls| tls.client_ca), Some("/c/ca.crt".into()));
        assert!(of(&["--flow-listen=[::]:4244", "--flow-plaintext=true"]).unwrap().is_some_and(|it| it.tls.is_none()));
        for flags in [
            &["--flow-listen=[::]:4244"][..],
            &["--flow-tls=/c"],
            &["--flow-plaintext=true"],
            &["--flow-listen=[::]:4244", "--flow-tls=c"],
            &["--flow-listen=[::]:4244", "--flow-tls=/c", "--flow-plaintext=true"],
        ] {
            assert!(of(flags).is_err_and(|error| error.to_string().starts_with("--flow-")), "{flags:?}");
        }
    }

    #[test]
    fn a_source_is_a_folder_or_an_api_server() {
        let server = Some("https://192.0.2.1:6443");
        let kubernetes = |path: Option<&str>, server: Option<&str>| Objects::Kubernetes {
            kubeconfig: path.map(PathBuf::from),
            server: server.map(|it| it.parse().unwrap()),
        };
        assert_eq!(objects("directory:/o", None).unwrap(), Objects::Directory("/o".into()));
        assert_eq!(objects("kubernetes", None).unwrap(), kubernetes(None, None));
        assert_eq!(objects("kubernetes:/c", server).unwrap(), kubernetes(Some("/c"), server));
        for (source, server) in [
            ("", None),
            ("directory", None),
            ("directory:", None),
            ("kubernetes:", None),
            ("consul:x", None),
            ("directory:/o", server),
            ("kubernetes", Some("192.0.2.1")),
            ("kubernetes", Some("")),
        ] {
            let error = objects(source, server).unwrap_err().to_string();
            assert!(error.starts_with("--source") || error.starts_with("--kubernetes-server"), "{source}: {error}");
        }
        assert_eq!(config(&[]).unwrap().ranges, Some(default_ranges()));
    }

    #[test]
    fn an_overlay_has_its_protocols_port_unless_another_is_asked_for() {
        assert_eq!(config(&["--overlay-protocol=geneve"]).unwrap().overlay, None, "routing is native");
        for (flags, protocol, port) in [
            (&[][..], Protocol::Vxlan, 8472),
            (&["--overlay-protocol=vxlan", "--overlay-port=0"], Protocol::Vxlan, 8472),
            (&["--overlay-port=4789"], Protocol::Vxlan, 4789),
            (&["--overlay-protocol=geneve"], Protocol::Geneve, 6081),
            (&["--overlay-protocol=geneve", "--overlay-port=8472"], Protocol::Geneve, 8472),
        ] {
            let found = config(&[&["--routing=overlay"], flags].concat()).unwrap().overlay;
            assert_eq!(found, Some(Overlay { protocol, port }), "{flags:?}");
        }
    }

    #[test]
    fn dns_is_listened_to_at_port_53_unless_others_or_none_are_named() {
        let ports = |flags: &[&str]| config(flags).unwrap().capacities;
        let wanted = |ports| {
            let mut capacities = Capacities::default();
            capacities.listen_to_dns(ports);
            capacities
        };
        assert_eq!(ports(&[]), wanted([53, 0, 0, 0]));
        assert_eq!(ports(&["--dns-ports=53,1053, 5353"]), wanted([53, 1053, 5353, 0]));
        assert_eq!(
            (ports(&["--dns-ports="]), ports(&["--dns-ports="]).listens_to_dns()),
            (Capacities::default(), false)
        );
        for wrong in ["0", "53;54", "65536", "1,2,3,4,5", "dns"] {
            assert!(wrong.parse::<crate::args::DnsPorts>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_pause_between_looks_for_dead_sandboxes_is_a_day_at_most() {
        assert_eq!(config(&[]).unwrap().gc_interval, Duration::from_secs(30));
        for seconds in [1, 86_400] {
            let flag = format!("--gc-interval={seconds}");
            assert_eq!(config(&[&flag]).unwrap().gc_interval, Duration::from_secs(seconds));
        }
        for seconds in ["0", "86401", "18446744073709551615"] {
            let error = config(&[&format!("--gc-interval={seconds}")]).unwrap_err();
            assert_eq!(error.to_string(), format!("--gc-interval {seconds}: want seconds from 1 to 86400"));
        }
    }

    #[test]
    fn the_grace_of_an_identitys_number_is_a_day_at_most() {
        assert_eq!(config(&["--identity-grace=7"]).unwrap().identity_grace, Duration::from_secs(7));
        for seconds in ["0", "86401"] {
            let error = config(&[&format!("--identity-grace={seconds}")]).unwrap_err();
            assert_eq!(error.to_string(), format!("--identity-grace {seconds}: want seconds from 1 to 86400"));
        }
    }
}
