//! Services for people: one line for each port at each address, or one Service with its backends.

use std::io;

use super::{
    out::Out,
    table::{Item, Table, Tone},
    text::{count, or_dash},
};
use crate::view::service::{Backend, BackendState, Port, PortState, Service};

/// Prints a list.
pub(crate) fn list(out: &mut Out, services: &[Service]) -> io::Result<()> {
    let mut table = Table::new(["NAMESPACE", "NAME", "TYPE", "ADDRESS", "PROTOCOL", "STATUS", "READY", "NOTE"]);
    for service in services {
        let own = || [&service.namespace, &service.name, &service.service_type].map(Item::from).to_vec();
        if service.ports.is_empty() {
            let dashes = [(); 4].map(|()| Item::from("-"));
            table.row([own(), dashes.to_vec(), vec![Item::from(&service.nowhere)]].concat());
        }
        for port in &service.ports {
            let rest = vec![
                Item::from(port.to_string()),
                Item::from(protocol(port)),
                status(port.state),
                Item::from(ready(port)),
                note(port),
            ];
            table.row([own(), rest].concat());
        }
    }
    out.table(&table, "no Services")
}

/// Prints one Service with everybody who may serve.
pub(crate) fn detail(out: &mut Out, service: &Service) -> io::Result<()> {
    out.field("service", &format!("{}/{}", service.namespace, service.name))?;
    out.field("type", &service.service_type)?;
    if service.ports.is_empty() {
        return out.field("addresses", &format!("none: {}", service.nowhere));
    }
    for port in &service.ports {
        out.raw("\n")?;
        out.field("address", &format!("{port} {}", protocol(port)))?;
        let more = if port.taken_by.is_empty() { String::new() } else { format!(": {} stands there", port.taken_by) };
        out.field("status", &format!("{}{more}", port.state.word()))?;
        let mut table = Table::new(["BACKEND", "STATUS", "POD", "HERE"]).indent(2);
        for backend in &port.backends {
            let pod = backend.pod.as_ref().map(ToString::to_string).unwrap_or_default();
            table.row([
                Item::from(backend.to_string()),
                backend_status(backend),
                Item::from(or_dash(&pod)),
                Item::from(if backend.here { "yes" } else { "" }),
            ]);
        }
        out.table(&table, "  no backends: no pod that it selects has an address and this port")?;
    }
    Ok(())
}

/// `tcp`, and the port's name if it has one.
fn protocol(port: &Port) -> String {
    if port.name.is_empty() { port.protocol.clone() } else { format!("{} {}", port.protocol, port.name) }
}

/// How many serve, of how many.
fn ready(port: &Port) -> String {
    let serving = port.backends.iter().filter(|backend| backend.state.serves()).count();
    format!("{serving}/{}", port.backends.len())
}

fn status(state: PortState) -> Item {
    let tone = match state {
        PortState::InForce => Tone::Good,
        PortState::NoBackend | PortState::Waiting | PortState::Unknown => Tone::Warn,
        PortState::Taken | PortState::NoRoom => Tone::Bad,
    };
    Item::new(tone, state.word())
}

fn backend_status(backend: &Backend) -> Item {
    let tone = match backend.state {
        BackendState::Ready => Tone::Good,
        BackendState::NoRoom => Tone::Bad,
        _ => Tone::Warn,
    };
    Item::new(tone, backend.state.word())
}

/// What needs attention.
fn note(port: &Port) -> Item {
    let waiting = port.backends.iter().filter(|backend| backend.state == BackendState::NoRoom).count();
    match port.state {
        PortState::Taken => Item::new(Tone::Bad, format!("{} stands there", port.taken_by)),
        _ if waiting > 0 => Item::new(Tone::Bad, format!("no room for {}", count(waiting as u64, "backend"))),
        _ => Item::from(""),
    }
}
