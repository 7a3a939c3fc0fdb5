//! The two ways to get a Kafka, `tests/kafka/kafka` and `docker-compose.yml`, give the same one.

use crate::Breach;

/// What the script says of Kafka 4 and its nodes, held against the text of the compose file.
pub(crate) fn compose_in_step(script: &str, compose: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut want = |line: &str| {
        // A YAML value that would be read as a boolean stands in quotes.
        let wanted = [
            line.to_owned(),
            line.replace("true", "\"true\"")
                .replace("false", "\"false\""),
        ];
        if !compose
            .lines()
            .any(|have| wanted.iter().any(|wanted| have.trim() == *wanted))
        {
            let rule = format!("wants `{line}`, as tests/kafka/kafka has it");
            breaches.push(Breach::of_file("docker-compose.yml", rule));
        }
    };
    let version = script
        .lines()
        .find_map(|line| line.strip_prefix("readonly NEWEST_4="));
    want(&format!(
        "image: apache/kafka:{}",
        version.unwrap_or("(NEWEST_4 not found)")
    ));
    for (name, value) in settings(script) {
        want(&format!("{name}: {value}"));
    }
    breaches
}

/// Whether every file that the compose file mounts is in the repository, and every host that it and
/// the files it mounts name is one of its services.
pub(crate) fn compose_is_whole(compose: &str, mounted: &[(&str, &str)]) -> Vec<Breach> {
    let lines = || compose.lines().map(str::trim);
    let mut breaches = Vec::new();
    let mut breach = |rule| breaches.push(Breach::of_file("docker-compose.yml", rule));
    for line in lines() {
        let Some((source, _)) = line
            .strip_prefix("- ./")
            .and_then(|mount| mount.split_once(':'))
        else {
            continue;
        };
        let is_there = |(path, _): &&(&str, &str)| {
            let rest = path.strip_prefix(source);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !mounted.iter().any(|file| is_there(&file)) {
            breach(format!("mounts ./{source}, which is not there"));
        }
    }
    let services: Vec<&str> = services(compose).collect();
    let texts = mounted.iter().map(|(_, text)| *text).chain([compose]);
    for host in texts.flat_map(hosts) {
        if !services.contains(&host) {
            breach(format!("{host} is named as a host, and is no service"));
        }
    }
    breaches
}

/// The names under `services:`.
fn services(compose: &str) -> impl Iterator<Item = &str> {
    let body = compose.split_once("\nservices:\n").map_or("", |(_, b)| b);
    let body = body.split_once("\nvolumes:\n").map_or(body, |(b, _)| b);
    body.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?.strip_suffix(':')?;
        (!name.starts_with([' ', '#'])).then_some(name)
    })
}

/// The hosts that are written with a port behind them, but for this machine's.
fn hosts(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-:.".contains(letter);
    let code = text.lines().filter(|line| !line.trim().starts_with('#'));
    let words = code.flat_map(move |line| line.split(move |letter| !is_part(letter)));
    words.filter_map(|word| {
        let (host, port) = word.split_once(':')?;
        let is_host = host.starts_with(|letter: char| letter.is_ascii_lowercase());
        let is_port = port.len() >= 4 && port.bytes().all(|byte| byte.is_ascii_digit());
        (is_host && is_port && host != "localhost").then_some(host)
    })
}

/// The broker settings of the script whose values are written out, under the names the image takes them by.
fn settings(script: &str) -> Vec<(String, &str)> {
    let body = script
        .split_once("<<PROPERTIES\n")
        .map_or("", |(_, rest)| rest);
    let body = body
        .split_once("\nPROPERTIES\n")
        .map_or("", |(body, _)| body);
    body.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, value)| !name.starts_with('#') && !value.contains(['$', ':']))
        .map(|(name, value)| {
            (
                format!("KAFKA_{}", name.to_uppercase().replace('.', "_")),
                value,
            )
        })
        .filter(|(name, _)| name != "KAFKA_INTER_BROKER_LISTENER_NAME")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "readonly NEWEST_4=4.9.9\n  cat <<PROPERTIES\n# a=b\nnode.id=$1\nmin.insync=2\nauto.create=false\nPROPERTIES\n";

    #[test]
    fn a_compose_file_in_step_passes() {
        let compose =
            "  image: apache/kafka:4.9.9\n  KAFKA_MIN_INSYNC: 2\n  KAFKA_AUTO_CREATE: \"false\"\n";
        assert_eq!(compose_in_step(SCRIPT, compose), []);
    }

    #[test]
    fn another_version_or_setting_is_caught() {
        let compose =
            "  image: apache/kafka:4.9.8\n  KAFKA_MIN_INSYNC: 1\n  KAFKA_AUTO_CREATE: false\n";
        let rules: Vec<String> = compose_in_step(SCRIPT, compose)
            .into_iter()
            .map(|breach| breach.rule)
            .collect();
        assert_eq!(rules.len(), 2, "{rules:?}");
        assert!(rules[0].contains("apache/kafka:4.9.9"), "{rules:?}");
        assert!(rules[1].contains("KAFKA_MIN_INSYNC: 2"), "{rules:?}");
        assert_eq!(
            compose_in_step("", compose).len(),
            1,
            "a script without settings is no pass"
        );
    }

    const WHOLE: &str = "x: y\nservices:\n  db:\n    image: db:1\n  page:\n    command: [\"db:6379\"]\n    \
                         volumes:\n      - ./deploy/page:/etc/page:ro\n\nvolumes:\n  data:\n";

    #[test]
    fn what_is_mounted_and_who_is_reached_must_be_there() {
        let files = [("deploy/page/a.yml", "url: http://db:6379\n# old:1234")];
        assert_eq!(compose_is_whole(WHOLE, &files), []);
        let missing = compose_is_whole(WHOLE, &[("deploy/pages/a.yml", "")]);
        assert!(missing[0].rule.contains("./deploy/page,"), "{missing:?}");
        let unknown = compose_is_whole(WHOLE, &[("deploy/page/a.yml", "targets: [\"bd:6379\"]")]);
        assert!(unknown[0].rule.contains("bd is named"), "{unknown:?}");
    }
}
