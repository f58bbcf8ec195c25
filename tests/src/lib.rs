//! Tools for everything that needs a kernel, a network namespace or a container runtime. The
//! tests themselves are in `tests/`.
//!
//! ```text
//! packet   builds packets, compares them, writes pcap       no kernel
//! netns    throwaway network namespaces
//! prog     loads the programs, runs them on one packet
//! count    counters, and that a change is exactly the expected one
//! rules    rule sets as the compiler would write them
//! host     who takes part
//! lab      all of these together: a node in miniature
//! full     tables that refuse on purpose
//! bpffs    a BPF file system of one's own
//! seen     what a program did with a packet, and what it should have done
//! ```

pub mod bpffs;
pub mod count;
pub mod full;
pub mod host;
pub mod lab;
pub mod netns;
pub mod packet;
pub mod prog;
pub mod rules;
pub mod seen;
