//! IPv4 options and IPv6 extension headers.

use datapath_abi::reason::DropReason::{ExtensionHeader, TruncatedHeader};
use tests::{
    packet::{Body, Packet},
    scene::{ASKED, FIRST, FREE, ISOLATED, Scene},
    table::{PASSES, Table, drops},
};

use crate::{beginnings, ports};

/// Eight bytes but for the first: padding.
const PAD: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
/// A routing header without a stop left.
const ROUTED: [u8; 7] = [0, 0, 0, 0, 0, 0, 0];
/// A fragment header of a packet that is whole: neither offset nor more (RFC 6946).
const ATOMIC: [u8; 7] = [0, 0, 0, 0, 0, 0, 9];

/// A header by its number.
fn header(number: u8) -> (u8, Vec<u8>) {
    let rest = match number {
        43 => ROUTED,
        44 => ATOMIC,
        _ => PAD,
    };
    (number, rest.to_vec())
}

/// Destination options of so many bytes.
fn long(bytes: usize) -> (u8, Vec<u8>) {
    let mut rest = vec![(bytes / 8 - 1) as u8];
    rest.resize(bytes - 1, 0);
    (60, rest)
}

fn with(packet: Packet, chain: &[(u8, Vec<u8>)]) -> Packet {
    chain.iter().fold(packet, |packet, (number, rest)| packet.extension(*number, rest))
}

/// All orders of up to four headers, of which one is at most a fragment header, with hop-by-hop options in
/// front and without.
fn orders() -> Vec<Vec<(u8, Vec<u8>)>> {
    let mut chains: Vec<Vec<u8>> = vec![Vec::new()];
    for length in 0..4 {
        let longer: Vec<Vec<u8>> = chains
            .iter()
            .filter(|chain| chain.len() == length)
            .flat_map(|chain| [43, 44, 60].map(|next| [&chain[..], &[next]].concat()))
            .filter(|chain| chain.iter().filter(|number| **number == 44).count() <= 1)
            .collect();
        chains.extend(longer);
    }
    chains
        .into_iter()
        .flat_map(|chain| [chain.clone(), [&[0][..], &chain].concat()])
        .filter(|chain| !chain.is_empty())
        .map(|chain| chain.into_iter().map(header).collect())
        .collect()
}

fn udp(scene: &Scene, number: usize) -> Packet {
    scene.from.udp(&scene.to, tests::host::Family::V6, ports(number))
}

/// Bytes of packets of whose ports an event says nothing.
fn hidden(packets: impl IntoIterator<Item = Packet>) -> Vec<Vec<u8>> {
    packets.into_iter().map(|packet| packet.bytes()).collect()
}

pub(crate) fn write(table: &mut Table) {
    options(table);
    extensions(table);
}

fn options(table: &mut Table) {
    table.group("IPv4 options", "Read through: up to twelve. A source route leads elsewhere than the header says.");
    table
        .packet("options: padding, record route, timestamp, router alert, unknown ones", |scene, family| {
            // IANA, IP option numbers.
            let route = [&[7, 39, 4][..], &[0; 37]].concat();
            let lists: [&[u8]; 7] = [
                &[1; 4],
                &[0; 4],
                &route,
                &[68, 8, 5, 0, 0, 0, 0, 0],
                &[148, 4, 0, 0],
                &[222, 4, 0, 0],
                &[1, 148, 4, 0, 0, 1, 7, 3, 4, 0, 131, 3],
            ];
            let lists = lists.into_iter().enumerate();
            lists.flat_map(|(number, list)| beginnings(scene, family, number, |it| it.options(list))).collect()
        })
        .v4()
        .usual(&FIRST);
    table
        .packet("12 options", |scene, family| beginnings(scene, family, 0, |it| it.options(&[1; 12])))
        .v4()
        .usual(&FIRST);
    let unread: fn(&Scene, tests::host::Family) -> Vec<Vec<u8>> =
        |scene, family| hidden(beginnings(scene, family, 0, |it| it.options(&[1; 16])));
    table.packet("more than 12 options", unread).v4().fate(&FREE, PASSES).fate(&ASKED, drops(ExtensionHeader));
    table
        .packet("loose or strict source route", |scene, family| {
            let routes = [131, 137].into_iter();
            routes
                .flat_map(|option| beginnings(scene, family, 0, |it| it.options(&[1, option, 7, 4, 192, 0, 2, 1])))
                .collect::<Vec<Packet>>()
        })
        .v4()
        .fate(&FREE, PASSES)
        .fate(&ISOLATED, drops(ExtensionHeader));
    table
        .packet("an option shorter than its own header", |scene, family| {
            let lengths = [0, 1].into_iter();
            hidden(lengths.flat_map(|length| beginnings(scene, family, 0, |it| it.options(&[7, length, 4, 0]))))
        })
        .v4()
        .fate(&FIRST, drops(TruncatedHeader));
}

fn extensions(table: &mut Table) {
    table.group(
        "IPv6 extension headers",
        "Read through: up to eight, 512 bytes: hop-by-hop options in the first place, destination options, routes without \
         a stop left, one fragment header. ESP and AH are protocols of their own, in both families.",
    );
    table
        .packet("all orders of up to four of them, behind hop-by-hop options or not", |scene, family| {
            let orders = orders().into_iter().enumerate();
            orders
                .flat_map(|(number, chain)| beginnings(scene, family, number, |it| with(it, &chain)))
                .map(|packet| packet.bytes())
                .collect::<Vec<_>>()
        })
        .v6()
        .usual(&FIRST);
    table
        .packet("8 of them; 512 bytes of them", |scene, family| {
            let chains = [vec![header(60); 8], [vec![header(0)], vec![header(60); 7]].concat(), vec![long(128); 4]];
            let chains = chains.into_iter().enumerate();
            chains
                .flat_map(|(number, chain)| beginnings(scene, family, number, |it| with(it, &chain)))
                .collect::<Vec<Packet>>()
        })
        .v6()
        .usual(&FIRST);
    table
        .packet("9 of them; 520 bytes of them", |scene, family| {
            let chains = [vec![header(60); 9], [vec![long(128); 4], vec![header(60)]].concat()];
            hidden(chains.iter().flat_map(|chain| beginnings(scene, family, 0, |it| with(it, chain))))
        })
        .v6()
        .fate(&FREE, PASSES)
        .fate(&ISOLATED, drops(ExtensionHeader));
    table
        .packet("hop-by-hop options in any other place", |scene, _| {
            hidden(
                [&[60, 0][..], &[0, 0], &[43, 0], &[44, 0]]
                    .map(|chain| with(udp(scene, 0), &chain.iter().map(|number| header(*number)).collect::<Vec<_>>())),
            )
        })
        .v6()
        .fate(&FREE, PASSES)
        .fate(&ISOLATED, drops(ExtensionHeader));
    table
        .packet("a route with a stop left", |scene, _| {
            // Types 0, 2 (RFC 6275), 4 (RFC 8754).
            hidden([0, 2, 4].map(|kind| udp(scene, 0).extension(43, &[0, kind, 1, 0, 0, 0, 0])))
        })
        .v6()
        .fate(&FREE, PASSES)
        .fate(&ISOLATED, drops(ExtensionHeader));
    table
        .packet("a second fragment header", |scene, _| {
            hidden([
                with(udp(scene, 0), &[header(44), header(44)]),
                with(udp(scene, 0), &[header(44), header(60), header(44)]),
            ])
        })
        .v6()
        .fate(&FREE, PASSES)
        .fate(&ISOLATED, drops(ExtensionHeader));
    table
        .packet("mobility, HIP, shim6, alone or behind others", |scene, _| {
            let numbers = [135, 139, 140].into_iter();
            hidden(numbers.flat_map(|number| {
                [vec![header(number)], vec![header(60), header(number)], vec![header(0), header(number), header(60)]]
                    .map(|chain| with(udp(scene, 0), &chain))
            }))
        })
        .v6()
        .fate(&FREE, PASSES)
        .fate(&ISOLATED, drops(ExtensionHeader));
    table
        .packet("no next header", |scene, family| {
            let nothing = scene.from.packet(&scene.to, family, Body::Raw { proto: 59 });
            hidden([nothing.clone(), with(nothing, &[header(60)])])
        })
        .v6()
        .fate(&FREE, PASSES)
        .fate(&ISOLATED, drops(ExtensionHeader));
    table
        .packet("ESP, AH, GRE, IP in IP, a protocol nobody knows (253)", |scene, family| {
            [50, 51, 47, 4, 253].map(|proto| scene.from.packet(&scene.to, family, Body::Raw { proto })).to_vec()
        })
        .usual(&FIRST);
    table
        .packet("a header cut short by the end of the packet", |scene, _| {
            // Says that it is 16 bytes longer than what there is.
            let body = Body::Raw { proto: 17 };
            let cut = scene.from.packet(&scene.to, tests::host::Family::V6, body).payload(&[]);
            hidden([cut.clone().extension(60, &[2, 0, 0, 0, 0, 0, 0]), cut.extension(60, &[])])
        })
        .v6()
        .fate(&FIRST, drops(TruncatedHeader));
}
