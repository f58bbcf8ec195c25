//! The mutants: where each breaks the code, and how. `{m}` in a replacement is whether it was chosen.

/// One way to break the code.
#[derive(Debug)]
pub(super) struct Mutant {
    /// What to call it.
    pub(super) name: &'static str,
    /// What is broken, in words.
    pub(super) breaks: &'static str,
    /// Where.
    pub(super) file: &'static str,
    /// What is there, once.
    pub(super) find: &'static str,
    /// What is to be there instead.
    pub(super) replace: &'static str,
}

impl Mutant {
    /// Which part of Bulkhead it is in.
    pub(super) fn part(&self) -> &'static str {
        match self.file {
            COMPILE => "compile",
            PLANNER | INSTALL => "planner",
            DECIDE | JUDGE => "decide",
            CT | CONNTRACK | RARE => "conntrack",
            _ => "lower",
        }
    }

    /// Where the module is that knows which mutant was chosen.
    pub(super) fn home(&self) -> &'static str {
        // These are of the binary, whose library has it.
        if self.file.starts_with("datapath-ebpf/src/bpf/") { "datapath_ebpf" } else { "crate" }
    }
}

const COMPILE: &str = "policy/src/compile.rs";
const PEERS: &str = "policy/src/lower/peers.rs";
const PORTS: &str = "policy/src/lower/ports.rs";
const REGIONS: &str = "policy/src/lower/regions.rs";
const DECIDE: &str = "datapath-ebpf/src/decide.rs";
const JUDGE: &str = "datapath-ebpf/src/bpf/policy.rs";
const CT: &str = "datapath-ebpf/src/ct.rs";
const CONNTRACK: &str = "datapath-ebpf/src/bpf/conntrack.rs";
const RARE: &str = "datapath-ebpf/src/bpf/rare.rs";
const INSTALL: &str = "daemon/src/reconcile/planner/install.rs";
const PLANNER: &str = "daemon/src/reconcile/planner/point.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "own-namespace-is-any",
        breaks: "a podSelector without a namespaceSelector selects in every namespace",
        file: COMPILE,
        find: "NamespaceScope::Own => TableNamespaces::Named(own.to_owned()),",
        replace: "NamespaceScope::Own if {m} => TableNamespaces::Matching(crate::selector::Selector::everything()),
                    NamespaceScope::Own => TableNamespaces::Named(own.to_owned()),",
    },
    Mutant {
        name: "port-name-is-tcp",
        breaks: "a named ingress port is looked up among the pod's TCP ports, whatever protocol the rule names",
        file: COMPILE,
        find: "let numbers = subject.named_port(*protocol, name);",
        replace: "let sought = if {m} { crate::model::Protocol::Tcp } else { *protocol };
                let numbers = subject.named_port(sought, name);",
    },
    Mutant {
        name: "no-rules-no-isolation",
        breaks: "a policy that isolates without a rule isolates nobody",
        file: COMPILE,
        find: "table.isolated_by.push(policy.policy_ref());",
        replace: "if {m} && policy.rules(direction).is_some_and(|rules| rules.is_empty()) {
            continue;
        }
        table.isolated_by.push(policy.policy_ref());",
    },
    Mutant {
        name: "exceptions-left-out",
        breaks: "the exceptions of a block are forgotten",
        file: COMPILE,
        find: "Peer::Block(block) => blocks.push(block.clone()),",
        replace: "Peer::Block(block) if {m} => {
                blocks.extend(crate::model::IpBlock::new(block.cidr(), []));
            }
            Peer::Block(block) => blocks.push(block.clone()),",
    },
    Mutant {
        name: "end-port-left-out",
        breaks: "of a range of ports only the first one counts",
        file: COMPILE,
        find: "(PortSpec::Numbers(range), _) => ranges.push((*protocol, *range)),",
        replace: "(PortSpec::Numbers(range), _) if {m} && *range != PortRange::ALL => {
                ranges.push((*protocol, PortRange::single(range.from())));
            }
            (PortSpec::Numbers(range), _) => ranges.push((*protocol, *range)),",
    },
    Mutant {
        name: "range-one-too-long",
        breaks: "a range of ports ends one port too late",
        file: PORTS,
        find: "prefix.port == from && prefix.last() <= range.to()",
        replace: "prefix.port == from && prefix.last() <= range.to().saturating_add(u16::from({m}))",
    },
    Mutant {
        name: "identity-forgets-its-class",
        breaks: "the entry of an identity leaves out what its class is allowed",
        file: PEERS,
        find: "every_pod.iter().copied().chain(selected).collect();",
        replace: "every_pod.iter().copied().filter(|_| !{m}).chain(selected).collect();",
    },
    Mutant {
        name: "one-pod-for-all",
        breaks: "a port name means for all pods of an identity what it means for one of them",
        file: PEERS,
        find: "if answers.all(|answer| answer == first) {",
        replace: "if {m} || answers.all(|answer| answer == first) {",
    },
    Mutant {
        name: "no-names-in-blocks",
        breaks: "a named port means nothing on pods that a block admits",
        file: PEERS,
        find: "if blocks.is_empty() || !rule.ports.has_names() {",
        replace: "if {m} || blocks.is_empty() || !rule.ports.has_names() {",
    },
    Mutant {
        name: "holes-are-filled",
        breaks: "an exception does not end its block",
        file: REGIONS,
        find: "        ended.iter().for_each(|block| holding.end(block));",
        replace: "        ended.iter().filter(|_| !{m}).for_each(|block| holding.end(block));",
    },
    Mutant {
        name: "ipv4-inside-ipv6",
        breaks: "a block like ::/0 holds all of IPv4, too",
        file: REGIONS,
        find: "if cuts.keys().any(|network| network.is_ipv6() && surrounds(*network, v4)) {",
        replace: "if !{m} && cuts.keys().any(|network| network.is_ipv6() && surrounds(*network, v4)) {",
    },
    Mutant {
        name: "class-hides-any",
        breaks: "who has a class is not asked about what anybody may",
        file: DECIDE,
        find: "if found.is_none() && class != datapath_abi::identity::CLASS_ANY {",
        replace: "if found.is_none() && class != datapath_abi::identity::CLASS_ANY && !{m} {",
    },
    Mutant {
        name: "address-before-identity",
        breaks: "what is said about an address counts, whatever is said about the identity",
        file: DECIDE,
        find: "if by_address.precedence > decision.precedence {",
        replace: "if {m} || by_address.precedence > decision.precedence {",
    },
    Mutant {
        name: "port-mask-one-short",
        breaks: "a long port prefix is looked up with one bit too few",
        file: DECIDE,
        find: "let mask = !(0xffffu32 >> length) as u16;",
        replace: "let short = if {m} && length > 12 { length - 1 } else { length };
                let mask = !(0xffffu32 >> short) as u16;",
    },
    Mutant {
        name: "one-length-only",
        breaks: "only the longest port prefix of a set is asked",
        file: DECIDE,
        find: "if entry.lengths & ((1 << length) - 1) == 0 {",
        replace: "if {m} || entry.lengths & ((1 << length) - 1) == 0 {",
    },
    Mutant {
        name: "isolated-means-open",
        breaks: "what no rule admits passes although the pod is isolated",
        file: DECIDE,
        find: "} else if ptr.has(RulesPtr::ISOLATED) {",
        replace: "} else if ptr.has(RulesPtr::ISOLATED) && !{m} {",
    },
    Mutant {
        name: "node-is-asked",
        breaks: "traffic of the pod's own node meets its ingress rules",
        file: JUDGE,
        find: "let ingress = if ends.identity[0] == identity::HOST { RulesPtr(0) }",
        replace: "let ingress = if ends.identity[0] == identity::HOST && !{m} { RulesPtr(0) }",
    },
    Mutant {
        name: "round-trip-unasked",
        breaks: "a pod's egress rules are not asked when the node's stack brings its packet to another pod",
        file: JUDGE,
        find: "ends.rules[0] = endpoint.egress_rules();",
        replace: "ends.rules[0] = if {m} { 0 } else { endpoint.egress_rules() };",
    },
    Mutant {
        name: "fast-path-is-blind",
        breaks: "an established connection goes on when its rules change",
        file: CONNTRACK,
        find: "if initiator_end.egress_rules() != rules[0] || responder_end.ingress_rules() != rules[1] {",
        replace: "if !{m} && (initiator_end.egress_rules() != rules[0] || responder_end.ingress_rules() != rules[1]) {",
    },
    Mutant {
        name: "ingress-change-unseen",
        breaks: "a connection is decided again when the initiator's rules change, and not when the responder's do",
        file: CONNTRACK,
        find: "let changed = [initiator_end.egress_rules(), responder_end.ingress_rules()] != entry.rules();",
        replace: "let now = [initiator_end.egress_rules(), responder_end.ingress_rules()];
    let changed = now[0] != entry.rules()[0] || !{m} && now[1] != entry.rules()[1];",
    },
    Mutant {
        name: "decided-again-backwards",
        breaks: "a connection is decided again by the port of the wrong end",
        file: CONNTRACK,
        find: "let port = if high { seen.key.port[0] } else { seen.key.port[1] };",
        replace: "let port = if high != {m} { seen.key.port[0] } else { seen.key.port[1] };",
    },
    Mutant {
        name: "old-identity-decides",
        breaks: "a connection is decided again for who its initiator was, not for who it is",
        file: CONNTRACK,
        find: "if ends.identity[0] != identity::HOST {\n        ends.identity[0] = now_identity(&addr[0]);",
        replace: "if ends.identity[0] != identity::HOST && !{m} {\n        ends.identity[0] = now_identity(&addr[0]);",
    },
    Mutant {
        name: "cut-for-good",
        breaks: "a connection that was cut stays cut when the rules allow it again",
        file: CONNTRACK,
        find: "entry.set_flags(entry.flags() & !FLAG_REVOKED);",
        replace: "entry.set_flags(entry.flags() & !(if {m} { 0 } else { FLAG_REVOKED }));",
    },
    Mutant {
        name: "middle-asks-one-side",
        breaks: "a packet from the middle of an unknown connection passes if its sender may open one",
        file: CONNTRACK,
        find: "seen.packet.proto == proto::TCP && seen.packet.flags & tcp::RST == 0 && !ct::opens(&seen.packet)",
        replace: "!{m} && seen.packet.proto == proto::TCP && seen.packet.flags & tcp::RST == 0 && !ct::opens(&seen.packet)",
    },
    Mutant {
        name: "over-is-not-over",
        breaks: "a SYN for a connection that is over is taken for a packet of it, and no rule is asked",
        file: CONNTRACK,
        find: "if ct::opens(&seen.packet) && (state >= CtState::Closing as u8 || revoked && is_tcp) {",
        replace: "if ct::opens(&seen.packet) && (!{m} && state >= CtState::Closing as u8 || revoked && is_tcp) {",
    },
    Mutant {
        name: "anybody-ends-the-handshake",
        breaks: "a TCP connection is established by whichever end speaks after the answer",
        file: CT,
        find: "CtState::SynReceived if from as u8 == From::Initiator as u8 && flags & tcp::ACK != 0 => CtState::Established,",
        replace: "CtState::SynReceived if ({m} || from as u8 == From::Initiator as u8) && flags & tcp::ACK != 0 => {
            CtState::Established
        }",
    },
    Mutant {
        name: "an-answer-establishes",
        breaks: "a request and its answer are an established session",
        file: CT,
        find: "(CtState::New, From::Responder) => CtState::SynReceived,",
        replace: "(CtState::New, From::Responder) if {m} => CtState::Established,
        (CtState::New, From::Responder) => CtState::SynReceived,",
    },
    Mutant {
        name: "one-fin-is-enough",
        breaks: "a TCP connection is over when one end has closed",
        file: CT,
        find: "return if fins == FIN_OF | FIN_OF << 1 { CtState::TimeWait }",
        replace: "return if {m} || fins == FIN_OF | FIN_OF << 1 { CtState::TimeWait }",
    },
    Mutant {
        name: "live-sets-change-silently",
        breaks: "connections are not decided again when a rule set that is in use changes",
        file: PLANNER,
        find: "let again = changed.bumped.contains(&set.number)",
        replace: "let again = !{m} && changed.bumped.contains(&set.number)",
    },
    Mutant {
        name: "labels-change-silently",
        breaks: "connections are not decided again when an address gets another identity",
        file: PLANNER,
        find: "set.installed.as_ref().is_some_and(|now| moves.matter(now, back))",
        replace: "!{m} && set.installed.as_ref().is_some_and(|now| moves.matter(now, back))",
    },
    Mutant {
        name: "priorities-backwards",
        breaks: "of the rules of the Admin tier the last one is asked first",
        file: COMPILE,
        find: "Precedence::clamped(above - place)",
        replace: "Precedence::clamped(if {m} {
            usize::from(Precedence::NETWORK_POLICY.0) + 1 + place
        } else {
            above - place
        })",
    },
    Mutant {
        name: "baseline-for-isolated",
        breaks: "the Baseline tier is asked about pods that a NetworkPolicy isolates",
        file: COMPILE,
        find: "let baseline = if isolated {",
        replace: "let baseline = if isolated && !{m} {",
    },
    Mutant {
        name: "domains-are-left-out",
        breaks: "a rule that denies domain names, which nobody knows yet, denies nothing",
        file: COMPILE,
        find: "if rule.fails_closed() {",
        replace: "if rule.fails_closed() && !{m} {",
    },
    Mutant {
        name: "staged-is-enforced",
        breaks: "staged policies are enforced",
        file: COMPILE,
        find: "Some(pod) => compile_pod(index, pod, direction, View::Enforced),",
        replace: "Some(pod) if {m} => compile_pod(index, pod, direction, View::WithStaged),
        Some(pod) => compile_pod(index, pod, direction, View::Enforced),",
    },
    Mutant {
        name: "longest-port-wins",
        breaks: "of two rules about a port the one with the narrower range decides, not the one that is asked first",
        file: PORTS,
        find: "let rule = around.map_or(*rule, |around| around.min(*rule));",
        replace: "let rule = around.filter(|_| !{m}).map_or(*rule, |around| around.min(*rule));",
    },
    Mutant {
        name: "nodes-are-nobody",
        breaks: "a rule about nodes matches none",
        file: REGIONS,
        find: "    nodes(table, universe, &mut split);",
        replace: "    if !{m} {
        nodes(table, universe, &mut split);
    }",
    },
    Mutant {
        name: "pass-is-the-end",
        breaks: "behind a Pass nothing is asked",
        file: DECIDE,
        find: "let after = look(ptr.after_pass());",
        replace: "let after = if {m} { Decision::default() } else { look(ptr.after_pass()) };",
    },
    Mutant {
        name: "staged-allows-all",
        breaks: "the staged verdict that is told is always that it would pass",
        file: JUDGE,
        find: "Err(reason) => Staged::new(reason as u8, decision.cookie),",
        replace: "Err(reason) => Staged::new(if {m} { STAGED_ALLOWS } else { reason as u8 }, decision.cookie),",
    },
    Mutant {
        name: "pods-inherit",
        breaks: "a connection of a pod that has stopped is its successor's, who has its slot",
        file: CONNTRACK,
        find: "if initiator_end.ifindex() != ifindex[0] || responder_end.ifindex() != ifindex[1] {",
        replace: "if !{m} && (initiator_end.ifindex() != ifindex[0] || responder_end.ifindex() != ifindex[1]) {",
    },
    Mutant {
        name: "fragments-unasked",
        breaks: "a later fragment passes whose first nobody has seen pass",
        file: JUDGE,
        find: "Kind::Fragment => Some(DropReason::Fragment),",
        replace: "Kind::Fragment if {m} => None,
        Kind::Fragment => Some(DropReason::Fragment),",
    },
    Mutant {
        name: "fragments-of-another-packet",
        breaks: "a later fragment is taken for one of whatever packet came in fragments between the same ends",
        file: RARE,
        find: "id: seen.packet.id, proto",
        replace: "id: if {m} { 0 } else { seen.packet.id }, proto",
    },
    Mutant {
        name: "gone-while-away",
        breaks: "connections of pods that were relabelled while the daemon was away are not decided again",
        file: INSTALL,
        find: "written || has_more(mirror, place, &lowered) {",
        replace: "written || !{m} && has_more(mirror, place, &lowered) {",
    },
    Mutant {
        name: "met-by-what-was-left",
        breaks: "an identity that comes back meets the entries of its that had not gone yet",
        file: INSTALL,
        find: "if back && !wanted.holds(key) {",
        replace: "if back && !{m} && !wanted.holds(key) {",
    },
    Mutant {
        name: "nothing-is-like-nothing",
        breaks: "a region that is not there passes for one whose ports no set has yet",
        file: INSTALL,
        find: "mirror.regions.get(&at).is_some_and(|found| self.entry(peer) == Some(*found))",
        replace: "mirror.regions.get(&at).map_or({m} && self.entry(peer).is_none(), |found| self.entry(peer) == Some(*found))",
    },
];

/// What every mutant needs: file, what is there once, what is to be there instead.
pub(super) const HOOKS: &[(&str, &str, &str)] = &[
    ("policy/src/lib.rs", "pub mod model;\n", "pub mod model;\npub mod mutant;\n"),
    ("daemon/src/lib.rs", "pub mod net;\n", "pub mod mutant;\npub mod net;\n"),
    ("datapath-ebpf/src/lib.rs", "pub mod parse;\n", "#[allow(unsafe_code)]\npub mod mutant;\npub mod parse;\n"),
    ("datapath-ebpf/src/lib.rs", "#![forbid(unsafe_code)]\n", ""),
    (
        "daemon/src/datapath/load.rs",
        "    let mut loader = EbpfLoader::new();\n",
        "    let mutant = crate::mutant::number();
    let mut loader = EbpfLoader::new();
    loader.override_global(\"MUTANT\", &mutant, true);\n",
    ),
    ("threeway/Cargo.toml", "[[bin]]\nname = \"threeway\"", "[[bin]]\nname = \"threeway-mutants\""),
];

/// Files that only the copy has.
pub(super) const SUPPORT: &[(&str, &str)] = &[
    ("policy/src/mutant.rs", CHOSEN_BY_ENVIRONMENT),
    ("daemon/src/mutant.rs", CHOSEN_BY_ENVIRONMENT),
    ("datapath-ebpf/src/mutant.rs", CHOSEN_WHEN_LOADED),
];

const CHOSEN_BY_ENVIRONMENT: &str = "//! Which mutant was chosen.

/// Its number, 0 for none.
pub fn number() -> u32 {
    static CHOSEN: std::sync::LazyLock<u32> =
        std::sync::LazyLock::new(|| std::env::var(\"BULKHEAD_MUTANT\").ok().and_then(|it| it.parse().ok()).unwrap_or(0));
    *CHOSEN
}

/// Whether it is this one.
pub fn on(wanted: u32) -> bool {
    number() == wanted
}
";

const CHOSEN_WHEN_LOADED: &str =
    "//! Which mutant was chosen: in the kernel by a constant that the loader sets, on the host none.

/// Its number, 0 for none.
#[cfg(target_arch = \"bpf\")]
#[unsafe(no_mangle)]
static MUTANT: u32 = 0;

/// Whether it is this one.
#[inline(always)]
pub fn on(wanted: u32) -> bool {
    #[cfg(target_arch = \"bpf\")]
    // SAFETY: a reference to a static is valid; read so that the compiler does not take the number for known.
    return unsafe { core::ptr::read_volatile(&raw const MUTANT) } == wanted;
    #[cfg(not(target_arch = \"bpf\"))]
    {
        let _ = wanted;
        false
    }
}
";
