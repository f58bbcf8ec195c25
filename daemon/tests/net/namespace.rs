//! Throwaway network namespaces, and what tests do in them.

use std::{
    fmt::Debug,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use daemon::{
    ipam::PodAddress,
    mac::Mac,
    net::{
        Netns, Node,
        host::{self, HostSide},
        pair::{self, Pair, PairSpec, PodDevice},
        pod::{self, PodSide},
    },
};

/// Leaves the test, with a word, if it could do nothing.
macro_rules! needs_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs CAP_NET_ADMIN");
            return;
        }
    };
}
pub(crate) use needs_root;

/// Whether the kernel has something that not all have, as was found out. The kernels of tests/kernels.toml have to have what
/// is listed there, and no more: what is not tried there is tried nowhere.
pub(crate) fn has(what: &str, found: bool) -> bool {
    match std::env::var("BULKHEAD_KERNEL_HAS") {
        Ok(list) => {
            assert_eq!(list.split(' ').any(|word| word == what), found, "{what}: tests/kernels.toml says {list:?}")
        }
        // Past the capture of test output: a skipped test must not look like a passed one.
        Err(_) if !found => drop(writeln!(std::io::stderr(), "skipped: this kernel has no {what}")),
        Err(_) => {}
    }
    found
}

/// A module of tests for each kind of a pair that pods have, of functions that take the kind.
macro_rules! of_both {
    ($($name:ident,)*) => {
        mod veth {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    crate::namespace::needs_root!();
                    super::$name(daemon::net::pair::PodDevice::Veth).await;
                }
            )*
        }

        mod netkit {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    crate::namespace::needs_root!();
                    if crate::namespace::has_netkit().await {
                        super::$name(daemon::net::pair::PodDevice::Netkit).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use of_both;

/// Whether the kernel has netkit, see [`has`].
pub(crate) async fn has_netkit() -> bool {
    let node = Node::own().await.unwrap();
    has("netkit", pair::is_known(&node, PodDevice::Netkit).await.unwrap())
}

/// A namespace that goes with this value.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) netns: Netns,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("bh-t-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let output = Command::new("ip").args(["netns", "add", &name]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let netns = Netns::open(&path(&name)).unwrap();
        Self { name, netns }
    }

    pub(crate) fn path(&self) -> PathBuf {
        path(&self.name)
    }

    /// Runs a command in the namespace; its output, for it must succeed.
    pub(crate) fn run(&self, command: &str) -> String {
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let output = self.netns.run_blocking(move || Command::new(&words[0]).args(&words[1..]).output()).unwrap();
        let output = output.unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A setting of the namespace.
    pub(crate) fn sysctl(&self, name: &'static str) -> String {
        self.netns.run_blocking(move || daemon::net::sysctl::get(name)).unwrap().unwrap().expect("the kernel has it")
    }

    pub(crate) fn listen(&self, address: &str) -> TcpListener {
        let address: SocketAddr = address.parse().unwrap();
        self.netns.run_blocking(move || TcpListener::bind(address)).unwrap().unwrap()
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.netns.run_blocking(move || TcpStream::connect_timeout(&address, Duration::from_secs(2))).unwrap()
    }

    /// Connects to a port of `to` that is listened on there; says who the listener thinks it is.
    pub(crate) fn seen_as(&self, to: &Namespace, address: IpAddr) -> IpAddr {
        let wildcard = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let listener = to.listen(wildcard);
        let target = SocketAddr::new(address, listener.local_addr().unwrap().port());
        let mut stream = self.connect(target).unwrap_or_else(|error| panic!("connect to {target}: {error}"));
        let (mut accepted, peer) = listener.accept().unwrap();
        stream.write_all(b"ping").unwrap();
        drop(stream);
        let mut text = String::new();
        accepted.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ping");
        peer.ip()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "del", &self.name]).output();
        if !deleted.as_ref().is_ok_and(|output| output.status.success()) {
            println!("leftover: namespace {}: {deleted:?}", self.name);
        }
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) const GATEWAYS: [&str; 2] = ["10.7.0.1", "fd00:7::1"];

/// A node with both gateways.
pub(crate) async fn node(namespace: &Namespace) -> Node {
    let node = Node::at(namespace.netns.clone()).await.unwrap();
    host::prepare(&node, &GATEWAYS.map(ip)).await.unwrap();
    node
}

/// A pod that is wired completely.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: Namespace,
    pub(crate) pair: Pair,
    pub(crate) pod_side: PodSide,
    pub(crate) host_side: HostSide,
}

impl Pod {
    pub(crate) fn v4(&self) -> IpAddr {
        self.pod_side.addresses[0].address
    }

    pub(crate) fn v6(&self) -> IpAddr {
        self.pod_side.addresses[1].address
    }
}

pub(crate) fn spec(device: PodDevice, container_id: &str) -> PairSpec {
    PairSpec { device, container_id: container_id.into(), ifname: "eth0".into(), mac: mac(), mtu: 1400, pod: None }
}

pub(crate) fn mac() -> Mac {
    daemon::net::mac::random().unwrap()
}

/// The `n`th pod of a test, with the addresses of that number; IPv4 only if `families` is 1.
pub(crate) async fn pod(device: PodDevice, node: &Node, n: u8, families: usize) -> Pod {
    let namespace = Namespace::new();
    let spec = spec(device, &format!("container{n}"));
    let pair = pair::create(node, &namespace.netns, &spec).await.unwrap();
    let all = [(format!("10.7.0.{n}"), GATEWAYS[0]), (format!("fd00:7::{n:x}"), GATEWAYS[1])];
    let addresses: Vec<PodAddress> = all[..families]
        .iter()
        .map(|(address, gateway)| PodAddress { address: ip(address), gateway: ip(gateway) })
        .collect();
    let pod_side = PodSide { ifname: "eth0".into(), ifindex: pair.pod_ifindex, addresses: addresses.clone() };
    let host_side =
        HostSide { ifname: pair.host_ifname.clone(), ifindex: pair.host_ifindex, pod_mac: spec.mac, addresses };
    pod::configure(&namespace.netns, &pod_side).await.unwrap();
    host::enable(node, &host_side).await.unwrap();
    pod::wait_until_open(&namespace.netns, &pod_side).await.unwrap();
    Pod { namespace, pair, pod_side, host_side }
}

/// The text of an error, for comparison.
pub(crate) fn told<T: Debug, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result.expect_err("must be refused").to_string()
}
