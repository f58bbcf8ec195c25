//! The gate of a node: who is in the deny list, and what is plainly wrong, does not get to the node's network stack; by real
//! packets from a host outside, in a driver and where there is none that can.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use aya::programs::{Xdp, XdpMode};
use daemon::datapath::load::{self, Capacities, program};
use datapath_abi::uplink::Budget;
use tests::{
    agent, frame,
    manifest::pod,
    node::{Node, PATIENCE, Setup, eventually},
    packet::{Body, Packet},
    sandbox::Sandbox,
    traffic::{
        Echo, OPEN,
        Protocol::{Tcp, Udp},
        Reached, SILENT, reach,
    },
    trial::trial,
    world::{self, World},
};

/// Where the world also is: addresses of documentation (RFC 5737, RFC 3849).
const BAD: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];
/// TCP and UDP, in both families.
const WAYS: usize = 4;
const LIST: &str = "# by order of the tests\n198.51.100.0/24\n2001:db8:7::/64  # the same of IPv6\n";

/// A node at an uplink, and what is beyond it.
struct Scene {
    node: Node,
    world: World,
}

impl Scene {
    /// The daemon is not started yet.
    fn new() -> anyhow::Result<Self> {
        let node = Node::without_daemon(Setup::default(), &[("pods.yaml", &pod("shop/web", ""))])?;
        let world = World::beside(&node)?;
        let [v4, v6] = BAD;
        world.sandbox.ip(&format!("addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\n"))?;
        Ok(Self { node, world })
    }

    fn list(&self) -> PathBuf {
        self.node.folder().join("deny.txt")
    }

    fn deny(&self, text: &str) -> anyhow::Result<()> {
        // As editors and kubelets do.
        let new = self.list().with_extension("new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.list())?)
    }

    fn start(&mut self, more: &[&str]) -> anyhow::Result<()> {
        let list = format!("--deny-list={}", self.list().display());
        self.node.set_arguments(&[&[list.as_str()], more].concat());
        self.node.start_daemon()?;
        self.node.wait_until_ready()
    }

    /// The world speaks with these addresses from now on.
    fn speak_as(&self, [v4, v6]: [&str; 2]) -> anyhow::Result<()> {
        self.world.sandbox.ip(&format!(
            "route replace 192.0.2.0/24 dev eth0 src {v4}\nroute replace 2001:db8:2::/64 dev eth0 src {v6} metric 1\n"
        ))
    }

    /// By how many of the ways that there are the world gets to the node as `who`.
    fn ways_in(&self, who: [&str; 2], patience: Duration) -> anyhow::Result<usize> {
        self.speak_as(who)?;
        let mut ways = 0;
        for to in self.world.node() {
            for protocol in [Tcp, Udp] {
                ways += usize::from(reach(&self.world.sandbox, protocol, (to, 80).into(), patience)? == Reached::Yes);
            }
        }
        Ok(ways)
    }

    /// Whether it does by all of them.
    fn is_let_in(&self, who: [&str; 2]) -> anyhow::Result<bool> {
        Ok(self.ways_in(who, OPEN)? == WAYS)
    }

    /// Whether it does by none.
    fn is_kept_out(&self, who: [&str; 2]) -> anyhow::Result<bool> {
        Ok(self.ways_in(who, SILENT)? == 0)
    }

    /// Waits until it is so.
    fn soon(&self, what: &str, is: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        ensure!(eventually(PATIENCE, is)?, "{what}: {}", agent::tail(&self.node.log()));
        Ok(())
    }

    /// Where packets are looked at, and how many ranges are kept out.
    fn gate(&self) -> anyhow::Result<Option<(Vec<String>, u32)>> {
        let gate = self.node.ask()?.status()?.datapath.context("a datapath")?.gate;
        Ok(gate.map(|gate| {
            let interfaces = gate.interfaces.iter().map(|at| format!("{} {}", at.name, at.way)).collect();
            (interfaces, gate.denied_ranges)
        }))
    }

    /// What stands wrong at the uplink.
    fn trouble(&self) -> anyhow::Result<String> {
        let conditions = self.node.ask()?.status()?.conditions;
        Ok(conditions.into_iter().find(|it| it.code == "uplink-trouble").map(|it| it.message).unwrap_or_default())
    }

    /// Whether some XDP program is at an interface of the node.
    fn has_program(&self, link: &str) -> anyhow::Result<bool> {
        Ok(self.node.sandbox.said("ip", &["link", "show", link])?.contains("xdp"))
    }

    fn metric(&self, name: &str) -> anyhow::Result<u64> {
        Ok(self.node.metric(name)? as u64)
    }

    /// A reason that there was no packet for has no sample.
    fn dropped(&self, reason: &str) -> anyhow::Result<u64> {
        self.node.ask()?.dropped(reason)
    }
}

fn is_followed(way: &str, prepare: impl Fn(&Scene) -> anyhow::Result<()>, link: &str) -> anyhow::Result<()> {
    let mut scene = Scene::new()?;
    prepare(&scene)?;
    let _echo = Echo::start(&scene.node.sandbox, &[80], &[80])?;
    // A list that is not there is told, and everything else works.
    scene.start(&[])?;
    scene.soon("a list that is not there", || Ok(scene.trouble()?.contains("deny.txt: No such file")))?;
    ensure!(scene.is_let_in(BAD)? && scene.is_let_in(world::HOST)?);
    // A line that is wrong is named, and the others hold.
    scene.deny(&format!("{LIST}203.0.113.256\n"))?;
    scene.soon("ranges are kept out", || scene.is_kept_out(BAD))?;
    let trouble = scene.trouble()?;
    ensure!(trouble.contains("line 4: \"203.0.113.256\" is neither"), "{trouble}");
    scene.deny(LIST)?;
    scene.soon("all is well again", || Ok(scene.trouble()?.is_empty()))?;
    ensure!(scene.gate()? == Some((vec![format!("{link} {way}")], 2)), "{:?}", scene.gate()?);
    ensure!(scene.is_let_in(world::HOST)?, "others are kept out as well");
    // It is counted and told.
    let is_told = |flows: &[serde_json::Value]| {
        BAD.iter().all(|ip| {
            flows.iter().any(|flow| {
                flow["IP"]["source"] == *ip
                    && flow["extensions"]["value"]["drop_reason"] == "deny_list"
                    && flow["source"]["labels"][0] == "reserved:world"
                    && flow["destination"]["labels"][0] == "reserved:host"
                    && flow["traffic_direction"] == "INGRESS"
            })
        })
    };
    scene.node.bulkhead().flows_when(&["--verdict", "denied"], is_told)?;
    ensure!(scene.dropped("deny_list")? >= 4);
    // It outlives the daemon, and the next one: also one whose list cannot be read.
    scene.node.take_agent()?.kill()?;
    ensure!(scene.is_kept_out(BAD)? && scene.is_let_in(world::HOST)?, "with nobody there");
    fs::remove_file(scene.list())?;
    scene.start(&[])?;
    scene.soon("trouble with the list", || Ok(scene.trouble()?.contains("what it said before holds")))?;
    ensure!(scene.is_kept_out(BAD)? && scene.gate()? == Some((vec![format!("{link} {way}")], 2)));
    // So it does over an upgrade, whose maps are others.
    scene.node.take_agent()?.kill()?;
    let pins = |version| scene.node.pins().join(format!("v{version}"));
    let (own, former) = (pins(datapath_abi::ABI_VERSION), pins(datapath_abi::ABI_VERSION - 1));
    fs::rename(&own, &former).context("a predecessor's pins")?;
    scene.start(&[])?;
    scene.soon("the predecessor is gone", || Ok(!former.exists()))?;
    ensure!(scene.is_kept_out(BAD)? && scene.is_let_in(world::HOST)?, "after the upgrade");
    ensure!(scene.gate()? == Some((vec![format!("{link} {way}")], 2)));
    // Without a default route nobody knows the uplink: it stays as it is.
    let [v4, v6] = world::HOST;
    scene.node.sandbox.ip("route del default\nroute del ::/0\n")?;
    scene.soon("trouble with the routes", || Ok(scene.trouble()?.contains("no default route")))?;
    ensure!(scene.has_program(link)?);
    scene.node.sandbox.ip(&format!("route add default via {v4}\nroute add ::/0 via {v6}\n"))?;
    // Whoever is a node is spared, whatever the list says.
    scene.deny(&format!("{LIST}192.0.2.0/24\n2001:db8:2::/64\n"))?;
    scene.soon("the neighbour is kept out", || scene.is_kept_out(world::HOST))?;
    let [v4, v6] = world::HOST;
    let neighbour = format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: neighbour}}\nstatus:\n  addresses:\n\
         \x20 - {{type: InternalIP, address: {v4}}}\n  - {{type: InternalIP, address: \"{v6}\"}}\n"
    );
    scene.node.apply("node.yaml", &neighbour)?;
    scene.soon("a node is spared", || scene.is_let_in(world::HOST))?;
    ensure!(scene.is_kept_out(BAD)?);
    let dumped = scene.node.bulkhead().run(&["dump", "DENIED"])?.out;
    ensure!(dumped.contains("DENIED\t192.0.2.0/24\trefused\n"), "{dumped}");
    ensure!(dumped.contains(&format!("DENIED\t{v6}/128\tspared\n")), "{dumped}");
    // An empty list keeps nobody out.
    scene.deny("# nobody\n")?;
    scene.soon("everybody is let in", || scene.is_let_in(BAD))?;
    // One that does not want it takes it away.
    scene.node.take_agent()?.stop()?;
    ensure!(scene.has_program(link)?);
    scene.node.set_arguments(&["--uplink=none"]);
    scene.node.start_daemon()?;
    scene.node.wait_until_ready()?;
    // The kernel takes it off a moment after its pin is gone.
    scene.soon("the program is gone", || Ok(!scene.has_program(link)?))?;
    ensure!(scene.gate()?.is_none());
    Ok(())
}

#[test]
fn a_deny_list_is_followed_in_the_driver() {
    trial(|| is_followed("driver", |_| Ok(()), "uplink0"));
}

/// A bridge has no driver that could.
#[test]
fn a_deny_list_is_followed_where_the_driver_cannot() {
    trial(|| {
        let bridge = |scene: &Scene| {
            let [v4, v6] = world::NODE;
            let [host_v4, host_v6] = world::HOST;
            scene.node.sandbox.ip(&format!(
                "link add br0 type bridge\nlink set br0 up\nlink set uplink0 master br0\n\
                 addr flush dev uplink0\naddr add {v4}/24 dev br0\naddr add {v6}/64 dev br0 nodad\n\
                 route replace default via {host_v4}\nroute replace ::/0 via {host_v6}\n"
            ))
        };
        is_followed("generic", bridge, "br0")
    });
}

/// MAC address of a link.
fn mac(space: &Sandbox, link: &str) -> anyhow::Result<[u8; 6]> {
    let said: serde_json::Value = serde_json::from_str(&space.said("ip", &["-json", "link", "show", link])?)?;
    let digits = said[0]["address"].as_str().context("an address")?.split(':');
    let bytes: Vec<u8> = digits.map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().context("six bytes")
}

/// What comes from outside and cannot be meant, and the reason for which it is dropped.
fn nonsense(from: [u8; 6], to: [u8; 6]) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    const SYN: u8 = 2;
    let tcp = |addr: [&str; 2], flags| {
        let addr = addr.map(|ip| ip.parse::<IpAddr>().expect("an address"));
        Packet::new([from, to], addr, Body::Tcp { port: [4000, 80], flags }).bytes()
    };
    let cut = |mut frame: Vec<u8>, left: usize| {
        frame.truncate(left);
        frame
    };
    let mut all = Vec::new();
    for (host, node, loopback) in
        [(world::HOST[0], world::NODE[0], "127.0.0.1"), (world::HOST[1], world::NODE[1], "::1")]
    {
        all.push(("no flags at all", tcp([host, node], 0), "tcp_flags"));
        all.push(("SYN and FIN", tcp([host, node], SYN | 1), "tcp_flags"));
        all.push(("SYN and RST", tcp([host, node], SYN | 4), "tcp_flags"));
        all.push(("from itself to itself", tcp([node, node], SYN), "invalid_packet"));
        all.push(("from a loopback", tcp([loopback, node], SYN), "invalid_packet"));
        all.push(("cut in the header", cut(tcp([host, node], SYN), 14 + 19), "truncated_header"));
    }
    all
}

#[test]
fn nonsense_does_not_get_in() {
    trial(|| {
        let mut scene = Scene::new()?;
        let _echo = Echo::start(&scene.node.sandbox, &[80], &[80])?;
        scene.node.set_arguments(&["--uplink=uplink0"]);
        scene.node.start_daemon()?;
        scene.node.wait_until_ready()?;
        scene.soon("the program is there", || Ok(scene.gate()? == Some((vec!["uplink0 driver".to_owned()], 0))))?;
        let (from, to) = (mac(&scene.world.sandbox, "eth0")?, mac(&scene.node.sandbox, "uplink0")?);
        for (what, frame, reason) in nonsense(from, to) {
            let before = scene.dropped(reason)?;
            frame::send(&scene.world.sandbox, "eth0", &[frame])?;
            scene.soon(what, || Ok(scene.dropped(reason)? > before))?;
        }
        ensure!(scene.is_let_in(world::HOST)?, "others are kept out as well");
        Ok(())
    });
}

/// A flood at the gate takes the place of no record of a pod's, and is counted to the last packet.
#[test]
fn a_flood_at_the_gate_is_counted_and_leaves_records_to_others() {
    const FLOOD: usize = 20_000;
    trial(|| {
        let mut scene = Scene::new()?;
        scene.deny(LIST)?;
        scene.start(&[])?;
        scene.soon("ranges are kept out", || Ok(scene.gate()?.is_some_and(|(_, ranges)| ranges == 2)))?;
        let addr = [BAD[0], world::NODE[0]].map(|ip| ip.parse().expect("an address"));
        let frame = Packet::new([[2, 0, 0, 0, 0, 1], [0xff; 6]], addr, Body::Udp { port: [4000, 53] }).bytes();
        let began = std::time::Instant::now();
        frame::send(&scene.world.sandbox, "eth0", &vec![frame; FLOOD])?;
        let flood = FLOOD as u64;
        scene.soon("all of it is counted", || Ok(scene.dropped("deny_list")? >= flood))?;
        let windows = (began.elapsed().as_nanos() >> Budget::WINDOW_SHIFT) as u64 + 2;
        let untold = scene.metric("bulkhead_uplink_unrecorded_total")?;
        let told = scene.dropped("deny_list")? - untold;
        let cores = std::thread::available_parallelism()?.get() as u64;
        ensure!(told > 0 && told <= Budget::MOST * windows * cores, "{told} records in {windows} windows");
        scene.soon("those that are told", || {
            Ok(scene.node.bulkhead().flows(&["--verdict", "denied"])?.len() as u64 == told)
        })?;
        ensure!(scene.metric("bulkhead_events_lost_total")? == 0);
        Ok(())
    });
}

/// Somebody else's program stays where it is.
#[test]
fn a_strangers_program_is_left_alone_and_named() {
    trial(|| {
        let mut scene = Scene::new()?;
        scene.deny(LIST)?;
        let mut stranger = load::load_some(None, &Capacities::least(), &[program::FROM_UPLINK])?;
        let xdp: &mut Xdp = stranger.program_mut(program::FROM_UPLINK).context("a program")?.try_into()?;
        let id = {
            let _inside = scene.node.sandbox.enter()?;
            xdp.attach("uplink0", XdpMode::Driver)?
        };
        scene.start(&[])?;
        scene
            .soon("the stranger is told", || Ok(scene.trouble()?.contains("uplink0 has an XDP program that is not")))?;
        ensure!(scene.gate()?.is_none() && scene.has_program("uplink0")?);
        xdp.detach(id)?;
        scene.soon("ours is there", || Ok(scene.gate()?.is_some() && scene.trouble()?.is_empty()))
    });
}

#[test]
fn a_node_is_clean_afterwards() {
    trial(|| {
        let mut scene = Scene::new()?;
        scene.deny(LIST)?;
        scene.start(&[])?;
        scene.soon("ours is there", || scene.has_program("uplink0"))?;
        scene.node.take_agent()?.stop()?;
        let places = scene.node.places();
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let uninstall = [&["uninstall", "--yes"], &places[..]].concat();
        scene.node.sandbox.said(agent::binary("bulkhead-daemon")?, &uninstall)?;
        scene.soon("the program is gone", || Ok(!scene.has_program("uplink0")?))
    });
}
