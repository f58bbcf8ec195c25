//! The only list of reasons for which a packet is dropped. Metrics, flow records, the API and
//! the documentation take number, name and text from here.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $hubble:literal, $text:literal;)*) => {
        /// Why a packet was dropped. Crosses as `u8`; 0 is "not dropped".
        #[repr(u8)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum DropReason {
            $($(#[$doc])* $variant = $number,)*
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];

            /// Name for metrics labels and JSON: snake case.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// One line for people.
            pub const fn text(self) -> &'static str {
                match self { $(DropReason::$variant => $text,)* }
            }

            /// Number of the Hubble API's `flow.DropReason` that says the same, so that stock
            /// clients print a text for it.
            pub const fn hubble(self) -> u32 {
                match self { $(DropReason::$variant => $hubble,)* }
            }
        }

        impl TryFrom<u8> for DropReason {
            type Error = u8;

            fn try_from(value: u8) -> Result<Self, u8> {
                match value { $($number => Ok(DropReason::$variant),)* other => Err(other) }
            }
        }
    };
}

reasons! {
    /// Isolated, and no rule admits it.
    DefaultDeny = 1, "default_deny", 133, "isolated by policy and no rule allows it";
    /// A deny rule matched.
    DenyRule = 2, "deny_rule", 181, "denied by a rule";
    /// Established, but the rules have changed and forbid it now.
    PolicyChange = 3, "policy_change", 133, "a policy or label change forbids the connection";
    /// Source address is not the pod's own.
    InvalidSourceIp = 4, "invalid_source_ip", 132, "source address does not belong to the sender";
    /// Source MAC is not the pod's own, or an ARP sender is not.
    InvalidSourceMac = 5, "invalid_source_mac", 132, "source MAC address does not belong to the sender";
    /// Header cut short or lengths that contradict each other.
    TruncatedHeader = 6, "truncated_header", 135, "header truncated or invalid";
    /// Neither IPv4, IPv6 nor ARP, or tagged with a VLAN.
    UnsupportedL3 = 7, "unsupported_l3_protocol", 139, "not IPv4, IPv6 or ARP, or in a VLAN";
    /// A later fragment of a packet whose first one was not seen or not let through, or of a
    /// connection that is over; to or from an isolated endpoint.
    Fragment = 8, "fragment", 157, "fragment of a packet whose first one has not passed";
    /// IPv6 extension headers that hide what comes after them, or more than are read, or a source
    /// route of either family; to or from an isolated endpoint.
    ExtensionHeader = 9, "extension_header", 142, "source route, or extension headers that cannot be read";
    /// Router advertisement or redirect (of either family) sent by a pod, neighbour discovery from
    /// off-link or in fragments.
    ForgedNeighbourDiscovery = 10, "forged_neighbour_discovery", 134, "neighbour discovery a pod may not send";
    /// The interface has no endpoint entry: not ready, or already gone.
    NoEndpoint = 11, "no_endpoint", 203, "no endpoint behind this interface";
    /// No space for the connection although an isolated endpoint needs it tracked.
    ConntrackFull = 12, "conntrack_full", 155, "no space for the connection";
    /// ICMP error to or from an isolated endpoint that belongs to no connection.
    UnrelatedIcmpError = 13, "unrelated_icmp_error", 133, "ICMP error related to no connection";
    /// Multicast or broadcast to or from an isolated endpoint.
    Multicast = 14, "multicast", 133, "multicast or broadcast with an isolated endpoint";
    /// A packet that cannot be: loopback or unspecified address on the wire, a kernel helper
    /// that refused.
    Invalid = 15, "invalid_packet", 134, "packet is not valid here";
    /// A pod on this node claims to be another one through the host's stack.
    Martian = 16, "martian", 132, "address of a local pod from another interface";
    /// TCP from the middle of a connection that was not seen to begin, and whose opening by
    /// the other end the rules would not allow.
    Midstream = 17, "midstream", 133, "TCP of an unknown connection that the other end may not have opened";
    /// The overlay brought a source address that is not that of the node it came from, or an address of another
    /// node's pod came in past the overlay.
    OverlaySource = 18, "overlay_source", 132, "source address is not of the node that the packet came from";
    /// A Service without a backend that is ready.
    NoBackend = 19, "no_backend", 158, "no backend of the Service is ready";
    /// Translated to its backend, the connection cannot be told from another one of the same pod, and no other source
    /// port was found.
    ServicePorts = 20, "service_ports", 155, "connection to a Service's backend that cannot be told from another one";
    /// TCP flags that no sender in its senses sets together: SYN with FIN or RST, or none at all.
    TcpFlags = 21, "tcp_flags", 134, "TCP flags that contradict each other";
    /// Its source is in the node's deny list.
    DenyList = 22, "deny_list", 181, "source address is in the deny list";
}

/// Number of counters per CPU and hook: one more than the greatest reason, 0 counts what passed.
pub const REASONS: u32 = DropReason::ALL.len() as u32 + 1;
