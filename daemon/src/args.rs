//! The command line: flags as they are written. `config` makes them into something checked.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use ipnetwork::IpNetwork;

/// The node agent of Bulkhead: wires pods into eBPF programs, enforces NetworkPolicy by pod
/// identity, and tells every flow over gRPC.
#[derive(Parser, Debug)]
#[command(name = "bulkhead-daemon", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit status: 0 done, 1 failure, 64 wrong usage.")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the daemon's binary can do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the agent until it is told to stop (SIGTERM, SIGINT)
    #[command(after_help = "\
Examples:
  bulkhead-daemon run --source directory:/etc/bulkhead/objects
  bulkhead-daemon run --source kubernetes --node-name node-1
  bulkhead-daemon run --source directory:./objects --pool 10.244.1.0/24 --pool fd00:10:244:1::/64 \\
      --run-dir /tmp/bh/run --state-dir /tmp/bh/state --metrics off

Stopping the agent leaves programs, maps and pods' interfaces in place: policy stays enforced.
`bulkhead-daemon uninstall` takes everything away.")]
    Run(Box<RunArgs>),
    /// Take everything away that the agent has left on this node: pods' interfaces, programs,
    /// maps, addresses, the masquerade table. Pods that run lose their network
    Uninstall(UninstallArgs),
    /// Print version, commit, ABI version and the oldest kernel supported
    Version,
    /// Print a completion script
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Where things are. The same for `run` and `uninstall`.
#[derive(clap::Args, Debug, Clone)]
pub struct Places {
    /// Folder of the sockets
    #[arg(long, env = "BULKHEAD_RUN_DIR", default_value = "/run/bulkhead", value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Folder of what must survive a restart
    #[arg(long, env = "BULKHEAD_STATE_DIR", default_value = "/var/lib/bulkhead", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Folder on a bpffs for pinned maps and links
    #[arg(long, env = "BULKHEAD_PIN_DIR", default_value = "/sys/fs/bpf/bulkhead", value_name = "DIR")]
    pub pin_dir: PathBuf,
    /// Name of the nftables table for masquerade
    #[arg(long, env = "BULKHEAD_NFT_TABLE", default_value = "bulkhead", value_name = "NAME")]
    pub nft_table: String,
    /// Range that pods get their addresses from; repeat for a second family or more ranges [default:
    /// 10.244.0.0/24 and fd00:10:244::/64; in a cluster what the Node object says in spec.podCIDRs]
    #[arg(long = "pool", env = "BULKHEAD_POOL", value_delimiter = ',', value_name = "CIDR")]
    pub pools: Vec<IpNetwork>,
}

/// Where a container runtime looks for what it needs. The same for `run` and `uninstall`.
#[derive(clap::Args, Debug, Clone)]
pub struct Runtime {
    /// Folder of the container runtime's CNI plugins
    #[arg(long, env = "BULKHEAD_CNI_BIN_DIR", default_value = "/opt/cni/bin", value_name = "DIR")]
    pub cni_bin_dir: PathBuf,
    /// Folder of its network configurations
    #[arg(long, env = "BULKHEAD_CNI_CONF_DIR", default_value = "/etc/cni/net.d", value_name = "DIR")]
    pub cni_conf_dir: PathBuf,
}

/// Flags of `run`.
#[derive(clap::Args, Debug)]
pub struct RunArgs {
    /// Where objects (Namespace, Pod, NetworkPolicy) come from: `directory:PATH`, a folder of YAML
    /// and JSON files that is watched; `kubernetes`, the API server of the cluster that the agent runs in as a
    /// pod; or `kubernetes:KUBECONFIG`, that of a file
    #[arg(long, env = "BULKHEAD_SOURCE", value_name = "SOURCE")]
    pub source: String,
    /// URL at which the API server is reached instead of the one that the source says: in a cluster without
    /// kube-proxy nobody may be there to lead to the Service `kubernetes`
    #[arg(long, env = "BULKHEAD_KUBERNETES_SERVER", value_name = "URL")]
    pub kubernetes_server: Option<String>,
    /// Places on this node
    #[command(flatten)]
    pub places: Places,
    /// Put the plugin and the network's configuration where the container runtime looks for them, once pods can be
    /// served
    #[arg(long, env = "BULKHEAD_INSTALL", default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub install: bool,
    /// Places of the container runtime
    #[command(flatten)]
    pub runtime: Runtime,
    /// Name of this node in flows and metrics [default: the host's name]
    #[arg(long, env = "BULKHEAD_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Name of the cluster in flows
    #[arg(long, env = "BULKHEAD_CLUSTER_NAME", default_value = "default", value_name = "NAME")]
    pub cluster_name: String,
    /// Address that serves /metrics, /healthz and /readyz, or `off`
    #[arg(long, env = "BULKHEAD_METRICS", default_value = "127.0.0.1:9965", value_name = "ADDRESS|off")]
    pub metrics: Listen,
    /// How packets get to pods of other nodes: as they are, which the network between the nodes must let through, or
    /// each in a packet of its own from node to node
    #[arg(long, env = "BULKHEAD_ROUTING", value_enum, default_value_t = Routing::Native)]
    pub routing: Routing,
    /// What the overlay wraps packets in, the same on all nodes
    #[arg(long, env = "BULKHEAD_OVERLAY_PROTOCOL", value_enum, default_value_t = OverlayProtocol::Vxlan, value_name = "PROTOCOL")]
    pub overlay_protocol: OverlayProtocol,
    /// UDP port of the overlay, the same on all nodes; 0 takes that of the protocol: 8472 for vxlan, 6081 for geneve
    #[arg(long, env = "BULKHEAD_OVERLAY_PORT", default_value_t = 0, value_name = "PORT")]
    pub overlay_port: u16,
    /// MTU of pods' interfaces, in bytes; 0 takes that of the uplink, or 1500, less what the overlay needs
    #[arg(long, env = "BULKHEAD_MTU", default_value_t = 0, value_name = "BYTES")]
    pub mtu: u32,
    /// Whether pods' packets to the outside bear the node's address
    #[arg(long, env = "BULKHEAD_MASQUERADE", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub masquerade: bool,
    /// Ranges outside the pools that pods' packets reach with the pod's own address
    #[arg(long, env = "BULKHEAD_NO_MASQUERADE", value_delimiter = ',', value_name = "CIDR")]
    pub no_masquerade: Vec<IpNetwork>,
    /// How programs are attached to new pods' interfaces; those that are there keep what they have
    #[arg(long, env = "BULKHEAD_ATTACH", value_enum, default_value_t = Attach::Clsact)]
    pub attach: Attach,
    /// What links new pods to the node; those that are there keep what they have
    #[arg(long, env = "BULKHEAD_POD_DEVICE", value_enum, default_value_t = PodDevice::Veth)]
    pub pod_device: PodDevice,
    /// Interfaces at which packets from outside are looked at before the network stack sees them, `auto` for those of the
    /// default routes, or `none` [default: auto with --deny-list, else none]
    #[arg(long, env = "BULKHEAD_UPLINK", value_delimiter = ',', value_name = "auto|none|INTERFACE")]
    pub uplink: Vec<String>,
    /// File with addresses and ranges whose packets are dropped at the uplink, one on each line; it is read again when it
    /// changes
    #[arg(long, env = "BULKHEAD_DENY_LIST", value_name = "FILE")]
    pub deny_list: Option<PathBuf>,
    /// Capacity of a map, in entries (EVENTS, DNS: bytes); may be repeated
    #[arg(long, env = "BULKHEAD_MAP_CAPACITY", value_delimiter = ',', value_name = "MAP=N")]
    pub map_capacity: Vec<String>,
    /// Ports of DNS servers: what pods ask there, over UDP and TCP, and what they are answered becomes flow records, and
    /// names of addresses in others; at most four, empty for none
    #[arg(long, env = "BULKHEAD_DNS_PORTS", default_value = "53", value_name = "PORT,...")]
    pub dns_ports: DnsPorts,
    /// Labels of pods whose values flow records do not tell, by key; `*` stands for any characters
    #[arg(long, env = "BULKHEAD_REDACT_LABELS", value_delimiter = ',', value_name = "KEY")]
    pub redact_labels: Vec<String>,
    /// DNS names that flow records do not tell; `*` stands for any characters
    #[arg(long, env = "BULKHEAD_REDACT_NAMES", value_delimiter = ',', value_name = "NAME")]
    pub redact_names: Vec<String>,
    /// Pod labels that do not make an identity unless a policy names them [default: those that
    /// controllers put on each pod, such as pod-template-hash]
    #[arg(long, env = "BULKHEAD_EXCLUDED_LABELS", value_delimiter = ',', value_name = "KEY")]
    pub excluded_labels: Option<Vec<String>>,
    /// Flow records kept in memory
    #[arg(long, env = "BULKHEAD_FLOW_RECORDS", default_value_t = 16_384, value_name = "N")]
    pub flow_records: usize,
    /// File that says where flow records are exported to; it is read again when it changes. docs/flow-export.md says
    /// what it may hold
    #[arg(long, env = "BULKHEAD_EXPORTERS", value_name = "FILE")]
    pub exporters: Option<PathBuf>,
    /// Folder of the flow history [default: history in the state folder]
    #[arg(long, env = "BULKHEAD_HISTORY_DIR", value_name = "FOLDER")]
    pub history_dir: Option<PathBuf>,
    /// Flow history that is older goes: 12h, 7d; 0: none goes for its age
    #[arg(long, env = "BULKHEAD_HISTORY_MAX_AGE", default_value = "7d", value_name = "AGE", value_parser = age)]
    pub history_max_age: Duration,
    /// Most that the flow history takes on disk; then the oldest goes. 0: no history is kept
    #[arg(long, env = "BULKHEAD_HISTORY_MAX_MEBIBYTES", default_value_t = 1024, value_name = "MIB")]
    pub history_max_mebibytes: u64,
    /// Address at which other machines read flows (the Hubble API), or `off`; needs --flow-tls. [::]:4244 is where relays
    /// look
    #[arg(long, env = "BULKHEAD_FLOW_LISTEN", default_value = "off", value_name = "ADDRESS|off")]
    pub flow_listen: Listen,
    /// Folder with the certificates for --flow-listen: tls.crt and tls.key are this node's, whoever has a certificate of
    /// ca.crt may read flows; the files are read again when they change
    #[arg(long, env = "BULKHEAD_FLOW_TLS", value_name = "DIR")]
    pub flow_tls: Option<PathBuf>,
    /// Serve --flow-listen without TLS: whoever reaches it reads flows, and whoever is between reads along
    #[arg(long, env = "BULKHEAD_FLOW_PLAINTEXT", action = clap::ArgAction::Set, default_value_t = false, value_name = "BOOL")]
    pub flow_plaintext: bool,
    /// How often a connection that lives on is reported, in seconds
    #[arg(long, env = "BULKHEAD_ACTIVE_INTERVAL", default_value_t = 60, value_name = "SECONDS")]
    pub active_interval: u64,
    /// How often to look for pods whose network namespace has gone without a DEL, in seconds (1 to
    /// 86400); their addresses are free again then
    #[arg(long, env = "BULKHEAD_GC_INTERVAL", default_value_t = 30, value_name = "SECONDS")]
    pub gc_interval: u64,
    /// How long nobody must have had the number of an identity, no pod, map entry or connection, before it may stand
    /// for another, in seconds (1 to 86400)
    #[arg(long, env = "BULKHEAD_IDENTITY_GRACE", default_value_t = 600, value_name = "SECONDS")]
    pub identity_grace: u64,
    /// How long no pod of the cluster must have had the number of an identity that all nodes share before it is removed,
    /// in seconds (1 to 86400)
    #[arg(long, env = "BULKHEAD_SHARED_IDENTITY_GRACE", default_value_t = 900, value_name = "SECONDS")]
    pub shared_identity_grace: u64,
    /// Namespace of the Lease by which agents agree who of them removes such numbers
    #[arg(long, env = "BULKHEAD_AGENT_NAMESPACE", default_value = "kube-system", value_name = "NAMESPACE")]
    pub agent_namespace: String,
    /// How logs are written
    #[arg(long, env = "BULKHEAD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: a level, or a filter as of tracing-subscriber's EnvFilter
    #[arg(long, env = "BULKHEAD_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// Flags of `uninstall`.
#[derive(clap::Args, Debug)]
pub struct UninstallArgs {
    /// Places on this node
    #[command(flatten)]
    pub places: Places,
    /// Places of the container runtime
    #[command(flatten)]
    pub runtime: Runtime,
    /// Do it; without this only says what would be removed
    #[arg(long)]
    pub yes: bool,
    /// Then stay until told to stop, as a DaemonSet wants it of its pods
    #[arg(long, requires = "yes")]
    pub stay: bool,
}

/// How packets get to pods of other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Routing {
    /// A route to each node's pods by way of the node's address: the nodes are on one network
    Native,
    /// A tunnel from node to node (--overlay-protocol): wherever nodes reach each other
    Overlay,
}

/// What links a pod to the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum PodDevice {
    /// A netkit pair where the kernel has them, which is tried; else veth
    Auto,
    /// A veth pair
    Veth,
    /// A netkit pair (kernel 6.7); refused where the kernel has none
    Netkit,
}

/// What the overlay wraps packets in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum OverlayProtocol {
    /// In every kernel that distributions ship
    Vxlan,
    /// The same to pods; for networks that treat it better. Refused where the kernel has no such device
    Geneve,
}

/// How programs are attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Attach {
    /// Filters of the qdisc clsact; one that somebody removes is put back
    Clsact,
    /// Links that only their owner can remove (kernel 6.6): a pod takes tens of milliseconds longer to start
    Tcx,
}

/// How logs are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// Ports of DNS servers, 0 where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DnsPorts(pub [u16; datapath_abi::dns::PORTS]);

impl std::str::FromStr for DnsPorts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut ports = [0; datapath_abi::dns::PORTS];
        let given = text.split(',').map(str::trim).filter(|port| !port.is_empty());
        for (place, port) in given.enumerate() {
            let wrong = || format!("{port:?} is not a port, want 1 to 65535");
            let most = || format!("more than {} ports", datapath_abi::dns::PORTS);
            *ports.get_mut(place).ok_or_else(most)? = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        }
        Ok(Self(ports))
    }
}

/// An address to listen on, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen(pub Option<SocketAddr>);

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let error = || format!("{text:?} is neither ADDRESS:PORT, such as 127.0.0.1:9965 or [::]:4244, nor `off`");
        text.parse().map(|address| Self(Some(address))).map_err(|_| error())
    }
}

impl From<OverlayProtocol> for crate::net::overlay::Protocol {
    fn from(protocol: OverlayProtocol) -> Self {
        match protocol {
            OverlayProtocol::Vxlan => Self::Vxlan,
            OverlayProtocol::Geneve => Self::Geneve,
        }
    }
}

impl From<LogFormat> for crate::telemetry::logging::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// An age: a number and one of s, m, h and d; or 0.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no age; write 12h, 7d or 0");
    let (number, unit) = text.split_at(text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "" if number == "0" => 0,
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        for (text, seconds) in [("0", 0), ("90s", 90), ("5m", 300), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)));
        }
        for wrong in ["", "7", "d", "-1d", "1w", "99999999999999999999d", "300000000000000d"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
