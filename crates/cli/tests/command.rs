//! The command as users run it, against its own embedded cluster.

#[cfg(test)]
mod command {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Output, Stdio};

    fn ottla(arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
        command
            .args(arguments)
            .env_remove("KAFKA_BOOTSTRAP_SERVERS")
            .env_remove("OTTLA_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `ottla broker` on free ports, ended when dropped.
    struct Broker {
        process: Child,
        bootstrap: String,
    }

    impl Broker {
        fn start(topics: &[&str]) -> Self {
            let mut arguments = vec!["broker", "--port", "0", "--nodes", "2"];
            for topic in topics {
                arguments.extend(["--topic", topic]);
            }
            let mut process = ottla(&arguments).spawn().unwrap();
            let mut bootstrap = String::new();
            let mut stdout = BufReader::new(process.stdout.take().unwrap());
            stdout.read_line(&mut bootstrap).unwrap();
            Self {
                process,
                bootstrap: bootstrap.trim().to_owned(),
            }
        }

        fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
            let mut process = ottla(arguments)
                .args(["-b", &self.bootstrap])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = process.stdin.take().unwrap();
            // Whoever does not read its input may be gone before all is written.
            let _ = stdin.write_all(input);
            drop(stdin);
            process.wait_with_output().unwrap()
        }

        /// Standard output of what has to end well.
        fn get(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
            let output = self.run(arguments, input);
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            output.stdout
        }
    }

    impl Drop for Broker {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn what_is_produced_is_consumed_byte_for_byte_whatever_the_codec() {
        let broker = Broker::start(&[]);
        let mut input = Vec::new();
        for number in 0..20_000u32 {
            input.extend_from_slice(format!("key-{}:{number}:", number % 100).as_bytes());
            input.extend([0, 0xff, b'\r', (number % 9) as u8, b'\n']);
        }
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let topic = format!("copy-{codec}");
            broker.get(&["topic", "create", &topic, "-p", "1"], b"");
            broker.get(&["produce", &topic, "-K:", "-z", codec], &input);
            let output = broker.get(&["consume", &topic, "-e", "-K:"], b"");
            assert!(output == input, "{codec} changed the records");
        }
    }

    #[test]
    fn keys_headers_null_and_offsets_come_out_as_asked_for() {
        let broker = Broker::start(&["orders:1"]);
        let flags = ["produce", "orders", "-K:", "-Z", "-H", "a=1", "-H", "b"];
        broker.get(&flags, b"k:v\nk2:\nplain");
        let format = "%t-%p@%o %k(%K)=%s(%S) %h\\n";
        let lines = broker.get(&["consume", "orders", "-e", "-f", format], b"");
        let expected = "orders-0@0 k(1)=v(1) a=1,b=NULL\n\
                        orders-0@1 k2(2)=(-1) a=1,b=NULL\n\
                        orders-0@2 (-1)=plain(5) a=1,b=NULL\n";
        assert_eq!(text(&lines), expected);
        let last = broker.get(
            &["consume", "orders", "-e", "-o", "-2", "-K", "=", "-Z"],
            b"",
        );
        assert_eq!(text(&last), "k2=NULL\nNULL=plain\n");
        let one = broker.get(&["consume", "orders", "-o", "1", "-n", "1", "-J"], b"");
        let json: serde_json::Value = serde_json::from_slice(&one).unwrap();
        assert_eq!(json["offset"], 1);
        assert_eq!(json["key"], "k2");
        assert_eq!(json["payload"], serde_json::Value::Null);
        assert_eq!(json["headers"], serde_json::json!(["a", "1", "b", null]));
    }

    #[test]
    fn lag_is_what_a_group_has_not_read_and_the_exit_code_says_whether_it_is_too_much() {
        let broker = Broker::start(&["orders:1"]);
        broker.get(&["produce", "orders"], b"a\nb\nc\n");
        let flags = [
            "consume",
            "orders",
            "-g",
            "readers",
            "-o",
            "beginning",
            "-n",
            "2",
        ];
        assert_eq!(text(&broker.get(&flags, b"")), "a\nb\n");
        let lag = broker.get(&["lag", "readers", "-q"], b"");
        let row: Vec<String> = text(&lag)
            .lines()
            .nth(1)
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        assert_eq!(
            row,
            ["readers", "orders", "0", "2", "3", "1", "-", "-", "-"]
        );
        let code = |flags: &[&str]| broker.run(flags, b"").status.code();
        assert_eq!(code(&["lag", "readers", "--max", "1"]), Some(0));
        assert_eq!(code(&["lag", "readers", "--max", "0"]), Some(3));
        let rest = broker.get(&["consume", "orders", "-g", "readers", "-e"], b"");
        assert_eq!(text(&rest), "c\n");
        let json = broker.get(&["lag", "readers", "--json"], b"");
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["lag"], 0);
        let unknown = broker.run(&["lag", "nobody"], b"");
        assert_eq!(unknown.status.code(), Some(1));
        let clause = "ottla: the consumer group nobody does not exist\n";
        assert_eq!(text(&unknown.stderr), clause);
    }

    #[test]
    fn lag_tells_time_and_status_where_they_are_asked_for() {
        let broker = Broker::start(&["orders:1"]);
        broker.get(&["produce", "orders"], b"a\nb\nc\nd\n");
        let read = ["consume", "orders", "-g", "readers", "-o", "beginning"];
        broker.get(&[&read[..], &["-n", "1"]].concat(), b"");
        let both = ["lag", "readers", "-q", "--seconds", "--status"];
        let told = text(&broker.get(&both, b""));
        let rows: Vec<Vec<&str>> = told
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0][5..8], ["LAG", "BEHIND", "STATUS"], "{told}");
        assert_eq!((rows[1][5], rows[1][7]), ("3", "WAITING"), "{told}");
        // The records were there when we began.
        assert!(rows[1][6].starts_with('>'), "{told}");
        let json = broker.get(&[&both[..], &["--json"]].concat(), b"");
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let partition = &json["partitions"][0];
        assert_eq!(partition["group_status"], "WAITING", "{json}");
        assert_eq!(partition["lag_seconds_at_least"], true, "{json}");
        assert!(partition["lag_seconds"].as_f64() > Some(0.1), "{json}");
        broker.get(&["consume", "orders", "-g", "readers", "-e"], b"");
        let told = text(&broker.get(&["lag", "readers", "-q", "--status"], b""));
        assert!(told.contains("OK") && !told.contains("BEHIND"), "{told}");
        let empty = broker.run(&["lag", ""], b"");
        assert_eq!(empty.status.code(), Some(2));
        assert_eq!(
            text(&empty.stderr),
            "ottla: the name of the group is empty\n"
        );
    }

    #[test]
    fn health_looks_as_often_as_properties_say() {
        let broker = Broker::start(&["orders:1"]);
        let health = ["health", "orders", "-g", "readers", "-s", "1.5", "--json"];
        let seldom = ["-X", "lag.refresh.interval.ms=60000"];
        let told = broker.get(&[&health[..], &seldom].concat(), b"");
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        let age = &told["topics"][0]["partitions"][0]["age_seconds"];
        assert!(age.as_f64() >= Some(1.4), "there was one look: {told}");
    }

    /// A Redis server, ended by its id when this goes.
    struct Redis {
        process: Child,
        url: String,
    }

    impl Redis {
        fn start() -> Self {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let mut server = Command::new("redis-server");
            server.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            server.args(["--save", "", "--appendonly", "no"]);
            let mut process = server.stdout(Stdio::piped()).spawn().unwrap();
            let lines = BufReader::new(process.stdout.take().unwrap()).lines();
            let mut lines = lines.map_while(Result::ok);
            assert!(lines.any(|line| line.contains("Ready to accept connections")));
            let url = format!("lag.fleet.redis.url=redis://127.0.0.1:{port}/0");
            Self { process, url }
        }

        fn end(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    impl Drop for Redis {
        fn drop(&mut self) {
            self.end();
        }
    }

    /// `ottla health` that goes on and on, ended when dropped.
    struct Watcher {
        process: Child,
        told: std::io::Lines<BufReader<std::process::ChildStdout>>,
    }

    impl Watcher {
        fn start(broker: &Broker, redis: &Redis) -> Self {
            let mut health = ottla(&["health", "orders", "-g", "readers", "--json"]);
            health.args(["-s", "0.5", "-w", "0.2", "-b", &broker.bootstrap]);
            health.args(["-X", &redis.url]);
            let mut process = health.spawn().unwrap();
            let told = BufReader::new(process.stdout.take().unwrap()).lines();
            Self { process, told }
        }

        /// Reads on until the figures come from there.
        fn until(&mut self, origin: &str) -> serde_json::Value {
            for _ in 0..300 {
                let told = self.told.next().unwrap().unwrap();
                let told: serde_json::Value = serde_json::from_str(&told).unwrap();
                if told["origin"].as_str().unwrap().starts_with(origin) {
                    return told;
                }
            }
            panic!("the figures are never {origin}");
        }

        /// Ends it; what it said on standard error.
        fn end(mut self) -> String {
            let _ = self.process.kill();
            let mut said = String::new();
            let mut stderr = self.process.stderr.take().unwrap();
            std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
            said
        }
    }

    impl Drop for Watcher {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    #[test]
    #[ignore = "needs redis"]
    fn processes_share_a_look_through_redis_and_go_on_without_it() {
        let broker = Broker::start(&["orders:1"]);
        broker.get(&["produce", "orders"], b"a\nb\nc\n");
        let read = ["consume", "orders", "-g", "readers", "-o", "beginning"];
        broker.get(&[&read[..], &["-n", "2"]].concat(), b"");
        let mut redis = Redis::start();
        let mut first = Watcher::start(&broker, &redis);
        assert_eq!(first.until("asked")["origin"], "asked");
        let mut second = Watcher::start(&broker, &redis);
        let lag = |told: &serde_json::Value| told["topics"][0]["partitions"][0]["lag"].clone();
        assert_eq!(lag(&second.until("shared")), 1);
        redis.end();
        for watcher in [&mut first, &mut second] {
            for _ in 0..10 {
                assert_eq!(lag(&watcher.until("asked (the shared store is ")), 1);
            }
        }
        for said in [first.end(), second.end()] {
            let said = said.lines().filter(|line| line.contains("store"));
            let said: Vec<&str> = said.collect();
            assert_eq!(said.len(), 1, "{said:?}");
        }
    }

    #[test]
    fn topics_are_created_shown_and_deleted() {
        let broker = Broker::start(&[]);
        let create = [
            "topic",
            "create",
            "orders",
            "-p",
            "3",
            "-r",
            "2",
            "--compact",
        ];
        broker.get(&create, b"");
        let again = broker.run(&create, b"");
        assert_eq!(again.status.code(), Some(1));
        assert!(text(&again.stderr).contains("TOPIC_ALREADY_EXISTS"));
        let shown = broker.get(&["topic", "describe", "orders", "-o", "json"], b"");
        let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
        assert_eq!(shown["partitions"].as_array().map(Vec::len), Some(3));
        assert_eq!(shown["configs"]["cleanup.policy"], "compact");
        let list = text(&broker.get(&["topic", "list"], b""));
        assert_eq!(
            list,
            "TOPIC   PARTITIONS  REPLICATION\norders  3           2\n"
        );
        broker.get(&["topic", "delete", "orders"], b"");
        assert_eq!(broker.get(&["topic", "ls", "-o", "json"], b""), b"[]\n");
    }

    #[test]
    fn topics_of_a_file_are_made_where_missing_and_told_where_they_differ() {
        let broker = Broker::start(&["orders:3"]);
        let ensure = |file: &str| {
            let output = broker.run(
                &["topic", "ensure", "-q", "-f", "-", "-o", "json"],
                file.as_bytes(),
            );
            let rows: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_default();
            (output.status.code(), rows, text(&output.stderr))
        };
        let clicks = "[[topic]]\nname = \"clicks\"\npartitions = 4\nreplication = 2\n\
                      cleanup.policy = \"compact\"\nconfig = { retention.ms = 1000 }\n";
        let row = |name: &str, state: &str, because: &[&str]| serde_json::json!({"name": name, "state": state, "because": because});
        let (code, rows, _) = ensure(clicks);
        assert_eq!(
            (code, rows),
            (Some(0), [row("clicks", "created", &[])].into())
        );
        let shown = broker.get(&["topic", "describe", "clicks", "-o", "json"], b"");
        let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
        assert_eq!(shown["partitions"].as_array().unwrap().len(), 4);
        assert_eq!(shown["configs"]["cleanup.policy"], "compact");
        assert_eq!(shown["configs"]["retention.ms"], "1000");
        let (code, rows, _) = ensure(clicks);
        assert_eq!(
            (code, rows),
            (Some(0), [row("clicks", "as asked", &[])].into())
        );
        let orders = "[[topic]]\nname = \"orders\"\npartitions = 12\n";
        let (code, rows, said) = ensure(&format!("{orders}{clicks}"));
        let differs = row("orders", "differs", &["partitions is 3, not 12"]);
        assert_eq!(
            (code, rows),
            (Some(3), [differs, row("clicks", "as asked", &[])].into())
        );
        assert_eq!(said, "ottla: 1 of 2 topics are not as asked for\n");
        // One that cannot be made does not keep the others from it.
        let wrong = "[[topic]]\nname = \"far\"\nreplication = 30\n";
        let (code, rows, _) = ensure(&format!("{wrong}[[topic]]\nname = \"near\"\n"));
        assert_eq!((code, &rows[0]["state"]), (Some(1), &"failed".into()));
        assert_eq!(rows[1], row("near", "created", &[]));
        let (code, _, said) = ensure("[[topic]]\nname = 5\n");
        assert_eq!(
            (code, &*said),
            (Some(2), "ottla: -: topic 1: it has no name\n")
        );
    }

    #[test]
    fn mistakes_are_told_in_one_line_with_their_exit_code() {
        let broker = Broker::start(&["orders:1"]);
        let fails = |flags: &[&str], code, clause: &str| {
            let output = broker.run(flags, b"");
            assert_eq!(output.status.code(), Some(code), "{flags:?}: {output:?}");
            let stderr = text(&output.stderr);
            assert!(stderr.contains(clause), "{flags:?}: {stderr}");
        };
        fails(
            &["consume", "orders", "-p", "4"],
            1,
            "ottla: topic orders has 1 partitions",
        );
        fails(&["consume", "orders", "-o", "stored"], 2, "needs a --group");
        fails(
            &["produce", "orders", "-X", "linger.sm=5"],
            2,
            "did you mean linger.ms?",
        );
        fails(
            &["produce", "orders", "--partitioner", "lag-aware"],
            2,
            "needs the --group",
        );
        fails(
            &["produce", "orders", "no such file"],
            1,
            "ottla: no such file: ",
        );
    }

    #[test]
    fn an_oversize_line_fails_alone_and_is_named() {
        let broker = Broker::start(&["orders:1"]);
        let mut input = vec![b'x'; 2_000_000];
        input.extend_from_slice(b"\nfits\n");
        let output = broker.run(&["produce", "orders", "-q"], &input);
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        assert!(
            stderr.starts_with("ottla: 1 of 2 records failed"),
            "{stderr}"
        );
        assert!(stderr.contains("max.request.size"), "{stderr}");
        assert_eq!(broker.get(&["consume", "orders", "-e"], b""), b"fits\n");
    }

    #[test]
    fn a_reader_that_leaves_early_is_no_error_and_nothing_is_committed_for_it() {
        let broker = Broker::start(&["orders:1"]);
        let line = [b'x'; 1000];
        let input: Vec<u8> = [&line[..], b"\n"].concat().repeat(5_000);
        broker.get(&["produce", "orders"], &input);
        let flags = ["consume", "orders", "-g", "g", "-o", "beginning"];
        let mut process = ottla(&flags)
            .args(["-b", &broker.bootstrap])
            .spawn()
            .unwrap();
        drop(process.stdout.take());
        let output = process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(text(&output.stderr), "");
        let lag = broker.get(&["lag", "g", "--json"], b"");
        let lag: serde_json::Value = serde_json::from_slice(&lag).unwrap();
        assert_eq!(lag["lag"], 5_000);
    }

    #[test]
    fn both_sides_of_the_demo_get_the_same_load() {
        let flags = ["demo", "--seconds", "3", "--warm-up", "0", "--json"];
        let output = ottla(&flags).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let [left, right] = [&result["sides"][0], &result["sides"][1]];
        assert_eq!(left["partitioner"], "default");
        assert_eq!(right["partitioner"], "lag-aware");
        // The last record may be due while the run ends.
        let sent = |side: &serde_json::Value| side["records_sent"].as_i64().unwrap();
        assert!(sent(left) > 2_000, "{result}");
        assert!((sent(left) - sent(right)).abs() < 100, "{result}");
        for side in [left, right] {
            let number = |name: &str| side[name].as_i64().unwrap();
            let seen = number("records_consumed") + number("records_unread");
            assert_eq!(number("records_sent"), seen, "{result}");
        }
    }
}
