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
}
