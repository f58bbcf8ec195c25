//! The options of `bulkhead flows` that choose flows, as one table: name, what it is about,
//! which end. Not a derived struct, because `--not` turns around the option behind it and so
//! their order counts.

use clap::{Arg, ArgAction, ArgMatches, Command, Error, error::ErrorKind};

use super::criteria::{End, Field, Given, Value};

/// One option.
struct Flag {
    name: &'static str,
    short: Option<char>,
    field: Field,
    end: End,
    value: &'static str,
    help: &'static str,
}

/// Name of the option that turns the next one around.
const NOT: &str = "not";

/// Makes a row of [`FLAGS`].
const fn flag(name: &'static str, field: Field, end: End, value: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, field, end, value, help }
}

/// Every option that chooses flows.
const FLAGS: &[Flag] = &[
    Flag {
        short: Some('n'),
        ..flag("namespace", Field::Namespace, End::Either, "NAME", "Namespace; also of --pod where that names none")
    },
    flag("from-namespace", Field::Namespace, End::Source, "NAME", "As --namespace, of the source"),
    flag("to-namespace", Field::Namespace, End::Destination, "NAME", "As --namespace, of the destination"),
    flag(
        "pod",
        Field::Pod,
        End::Either,
        "[NS/]POD",
        "Pod, or the beginning of its name; NS/ alone is all of a namespace",
    ),
    flag("from-pod", Field::Pod, End::Source, "[NS/]POD", "As --pod, of the source"),
    flag("to-pod", Field::Pod, End::Destination, "[NS/]POD", "As --pod, of the destination"),
    flag("label", Field::Label, End::Either, "SELECTOR", "Label selector: app=web, 'tier in (a,b)', a=b,!c"),
    flag("from-label", Field::Label, End::Source, "SELECTOR", "As --label, of the source"),
    flag("to-label", Field::Label, End::Destination, "SELECTOR", "As --label, of the destination"),
    flag("workload", Field::Workload, End::Either, "[KIND/]NAME", "Workload: web, Deployment/web"),
    flag("from-workload", Field::Workload, End::Source, "[KIND/]NAME", "As --workload, of the source"),
    flag("to-workload", Field::Workload, End::Destination, "[KIND/]NAME", "As --workload, of the destination"),
    flag("ip", Field::Ip, End::Either, "ADDRESS", "IP address or CIDR"),
    flag("from-ip", Field::Ip, End::Source, "ADDRESS", "As --ip, of the source"),
    flag("to-ip", Field::Ip, End::Destination, "ADDRESS", "As --ip, of the destination"),
    flag("identity", Field::Identity, End::Either, "IDENTITY", "Identity: its number, or host, world, remote-node..."),
    flag("from-identity", Field::Identity, End::Source, "IDENTITY", "As --identity, of the source"),
    flag("to-identity", Field::Identity, End::Destination, "IDENTITY", "As --identity, of the destination"),
    flag("fqdn", Field::Fqdn, End::Either, "NAME", "DNS name of an address, with * for anything"),
    flag("from-fqdn", Field::Fqdn, End::Source, "NAME", "As --fqdn, of the source"),
    flag("to-fqdn", Field::Fqdn, End::Destination, "NAME", "As --fqdn, of the destination"),
    flag("dns-query", Field::DnsQuery, End::Whole, "REGEX", "Lookups of names that a regular expression matches"),
    flag("port", Field::Port, End::Either, "PORT", "Port"),
    flag("from-port", Field::Port, End::Source, "PORT", "As --port, of the source"),
    flag("to-port", Field::Port, End::Destination, "PORT", "As --port, of the destination"),
    flag("protocol", Field::Protocol, End::Whole, "PROTOCOL", "tcp, udp, sctp, icmp (both), icmpv4, icmpv6, dns"),
    flag("verdict", Field::Verdict, End::Whole, "VERDICT", "allowed or denied"),
];

/// What was given of [`FLAGS`], in the order of the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    given: Vec<Given>,
}

impl Flags {
    /// What was given.
    pub(crate) fn given(&self) -> &[Given] {
        &self.given
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        let not = Arg::new(NOT)
            .long(NOT)
            .action(ArgAction::Append)
            .num_args(0)
            .default_missing_value("true")
            .help("Turn the next option around: leave out what it matches")
            .help_heading("Which flows");
        let options = FLAGS.iter().map(|flag| {
            let field = flag.field;
            let arg = Arg::new(flag.name)
                .long(flag.name)
                .action(ArgAction::Append)
                .value_name(flag.value)
                .value_parser(move |text: &str| Value::parse(field, text))
                .help(flag.help)
                .help_heading("Which flows");
            match flag.short {
                Some(short) => arg.short(short),
                None => arg,
            }
        });
        command.args(options).arg(not)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        // Clap numbers options and values as they stand: `--not --pod a` is not=i, a=i+2.
        let mut nots: Vec<usize> = matches.indices_of(NOT).map(Iterator::collect).unwrap_or_default();
        let mut given = Vec::new();
        for flag in FLAGS {
            let (Some(values), Some(indices)) = (matches.get_many::<Value>(flag.name), matches.indices_of(flag.name))
            else {
                continue;
            };
            for (value, index) in values.zip(indices) {
                let before = nots.len();
                nots.retain(|not| not + 2 != index);
                given.push(Given {
                    flag: flag.name,
                    field: flag.field,
                    end: flag.end,
                    value: value.clone(),
                    negated: nots.len() < before,
                });
            }
        }
        if nots.is_empty() {
            return Ok(Self { given });
        }
        let text = "--not has to stand right before the option that it turns around, as in --not --protocol udp\n";
        Err(Error::raw(ErrorKind::ValueValidation, text))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    fn flags(line: &str) -> Result<Vec<(String, bool)>, Error> {
        let command = Flags::augment_args(Command::new("flows").no_binary_name(true))
            .arg(Arg::new("follow").long("follow").action(ArgAction::SetTrue));
        let matches = command.try_get_matches_from(line.split_whitespace())?;
        let flags = Flags::from_arg_matches(&matches)?;
        Ok(flags.given().iter().map(|given| (given.flag.to_owned(), given.negated)).collect())
    }

    #[test]
    fn not_turns_around_the_option_behind_it_and_no_other() {
        for (line, expected) in [
            ("--pod a", vec![("pod", false)]),
            ("--not --pod a", vec![("pod", true)]),
            ("--not --pod=a --port 80", vec![("pod", true), ("port", false)]),
            ("--port 80 --not -n a", vec![("namespace", true), ("port", false)]),
            ("-na --not -nb", vec![("namespace", false), ("namespace", true)]),
            ("--follow --not --pod a --not --pod b --pod c", vec![("pod", true), ("pod", true), ("pod", false)]),
        ] {
            let expected: Vec<(String, bool)> =
                expected.into_iter().map(|(name, not)| (name.to_owned(), not)).collect();
            assert_eq!(flags(line).expect(line), expected, "{line}");
        }
    }

    #[test]
    fn a_not_that_turns_nothing_around_is_refused() {
        for line in ["--not", "--not --follow", "--not --not --pod a", "--pod a --not"] {
            let error = flags(line).expect_err(line).to_string();
            assert!(error.contains("right before the option"), "{line}: {error}");
        }
    }
}
