//! Tools for everything that needs a kernel, a network namespace or a container runtime. The
//! tests themselves are in `tests/`.
//!
//! ```text
//! packet   builds packets, compares them, writes pcap       no kernel
//! netns    throwaway network namespaces
//! prog     loads the programs, runs them on one packet
//! model    what conntrack should make of packets, by the RFCs   no kernel
//! count    counters, and that a change is exactly the expected one
//! rules    rule sets as the compiler would write them
//! host     who takes part
//! lab      all of these together: a node in miniature
//! full     tables that refuse on purpose
//! bpffs    a BPF file system of one's own
//! seen     what a program did with a packet, and what it should have done
//! scene    situations in which a packet meets the programs
//! table    the table of docs/packets.md, while it is proven
//!
//! owner    names of throwaway things, and sweeping up after runs that died
//! sandbox  network namespaces with a name, as runtimes make them
//! agent    the daemon's process
//! node     a node: namespace, folders, daemon, manifests
//! manifest text of objects
//! plugin   calls of the CNI plugin
//! pod      a pod: namespace and attachment
//! ask      questions to the daemon: the `bulkhead` command, gRPC
//! traffic  servers and clients in a namespace
//! live     connections that run for a while, and what they lost
//! flood    packets that must not arrive, and traps for them
//! frame    frames that no socket of IP would send
//! footprint  what a daemon and its pods take up on a node
//! effort   how often, and how long it took
//! world    what is outside of the node
//! server   a program of somebody else's that serves in a node's network
//! feature  what not every kernel has, and that its tests are not left out where it has it
//! trial    whether a test may run, and what it says when it fails
//!
//! room        namespaces of its own for a machine with everything where it is installed
//! image       a container image made here
//! cgroup      a control group for containers
//! cri         the runtime's interface, as a kubelet uses it
//! containerd  a machine with a real containerd, and our daemon as its network
//! cluster     a Kubernetes cluster: real control plane, kubelets, containerds
//! ```

pub mod agent;
pub mod ask;
pub mod authority;
pub mod bpffs;
pub mod cgroup;
pub mod cluster;
pub mod containerd;
pub mod count;
pub mod cri;
pub mod dns;
pub mod effort;
pub mod feature;
pub mod flood;
pub mod footprint;
pub mod frame;
pub mod full;
pub mod host;
pub mod image;
pub mod lab;
pub mod live;
pub mod manifest;
pub mod model;
pub mod netns;
pub mod node;
pub mod owner;
pub mod packet;
pub mod plugin;
pub mod pod;
pub mod prog;
pub mod room;
pub mod rules;
pub mod sandbox;
pub mod scene;
pub mod seen;
pub mod server;
pub mod table;
pub mod traffic;
pub mod trial;
pub mod world;
