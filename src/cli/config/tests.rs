use std::fs;

use super::*;

fn merged(flags: ServeFlags, file: &str) -> Result<Settings, Vec<String>> {
    let mut problems = Vec::new();
    let variables = Variables::default();
    let settings = flags.merge(&variables, file.parse().expect("TOML"), &mut problems);
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// With these properties of Kafka in flags, in the variable and in the file.
fn properties(
    flags: &[&str],
    variable: &str,
    file: &str,
) -> Result<BTreeMap<String, String>, Vec<String>> {
    let mut problems = Vec::new();
    let flags = ServeFlags {
        kafka: Some("a:1".to_owned()),
        redis: Some("redis://b".to_owned()),
        kafka_property: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        ..ServeFlags::default()
    };
    let variables = Variables { properties: variable.to_owned(), property_files: String::new() };
    let settings = flags.merge(&variables, file.parse().expect("TOML"), &mut problems);
    match settings.backend {
        Backend::Shared { kafka, .. } if problems.is_empty() => Ok(kafka.properties),
        _ => Err(problems),
    }
}

#[test]
fn flags_come_before_the_file_and_the_file_before_the_defaults() {
    let flags = ServeFlags { listen: Some("127.0.0.1:7".to_owned()), ..ServeFlags::default() };
    let file = "listen = '127.0.0.1:8'\nhome_timeline_cap = 100\nhome_stream_limit = 9\nconnection_limit = 7\n";
    let settings = merged(flags, file).expect("good");
    assert_eq!(settings.listen.port(), 7);
    assert_eq!((settings.home_timeline_cap, settings.text_chars_max), (100, 140));
    assert_eq!(settings.home_streams_max, 9);
    assert_eq!((settings.connections.max, settings.connections.peer_max), (Some(7), None));
    assert!(matches!(
        settings.backend,
        Backend::Embedded { data_dir, partitions: None } if data_dir == Path::new("./roost-data")
    ));
}

#[test]
fn kafka_and_redis_are_read_from_a_file() {
    let both = merged(ServeFlags::default(), "role = 'both'").expect("good");
    assert_eq!(both.roles, Roles::default());
    let file = "role = ['worker']\nkafka = 'a:1,b:2'\nredis = 'redis://c'\npartitions = 8\n\
                [kafka_property]\n'security.protocol' = 'sasl_plaintext'\n";
    let settings = merged(ServeFlags::default(), file).expect("good");
    assert_eq!(settings.roles, Roles { api: false, worker: true });
    let Backend::Shared { kafka, redis } = settings.backend else { panic!("not shared") };
    assert_eq!((kafka.brokers.as_str(), kafka.partitions), ("a:1,b:2", Some(8)));
    assert_eq!(kafka.properties["security.protocol"], "sasl_plaintext");
    assert!(!redis.is_cluster());
}

#[test]
fn password_of_redis_is_read_from_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("password");
    let file = |user: &str, url: &str| {
        format!(
            "kafka = 'a:1'\nredis = '{url}'\n{user}redis_password_file = '{}'\n",
            path.display()
        )
    };
    let shared = |file: &str| merged(ServeFlags::default(), file);
    for written in ["s/e#c@r\n", "s/e#c@r\r\n", "s/e#c@r"] {
        fs::write(&path, written).expect("written");
        let settings = shared(&file("redis_user = 'ann'\n", "redis://c")).expect("good");
        let Backend::Shared { redis, .. } = settings.backend else { panic!("not shared") };
        let login = redis.connection_infos()[0].redis_settings();
        assert_eq!((login.username(), login.password()), (Some("ann"), Some("s/e#c@r")));
    }
    let twice = shared(&file("redis_user = 'ann'\n", "redis://bob:hunter2@c"));
    let twice = twice.expect_err("two of each");
    assert!(twice.len() == 2 && !twice.concat().contains("hunter2"), "{twice:?}");
    fs::write(&path, "\n").expect("written");
    assert!(shared(&file("", "redis://c")).expect_err("empty")[0].contains("is empty"));
    fs::remove_file(&path).expect("removed");
    let gone = shared(&file("", "redis://c")).expect_err("gone");
    assert!(gone[0].contains("redis_password_file: the file"), "{gone:?}");
    let alone = shared("redis_password_file = 'f'\nredis_user = 'ann'\n").expect_err("alone");
    assert_eq!(alone.len(), 2, "{alone:?}");
}

#[test]
fn password_on_the_command_line_alone_is_warned_about() {
    let with = Some("redis://ann:hunter2@a");
    assert!(shows_password(with, None) && shows_password(with, Some("redis://b")));
    assert!(!shows_password(with, with), "it is the variable's");
    assert!(!shows_password(Some("redis://ann@a"), None) && !shows_password(None, with));
}

#[test]
fn url_of_redis_that_is_broken_names_its_setting() {
    let file = "kafka = 'a:1'\nredis = 'redis://:p@ss:w/rd#1@127.0.0.1:17300'\n";
    let problems = merged(ServeFlags::default(), file).expect_err("broken").join("; ");
    assert!(problems.contains("--redis") && problems.contains("%2F"), "{problems}");
    assert!(!problems.contains("w/rd"), "{problems}");
}

#[test]
fn everything_wrong_is_told_at_once() {
    let file = "listn = 1\nlisten = 'x'\nhome_timeline_cap = 0\nrole = 'boss'\n\
                kafka = 'a:1'\ndata_dir = 'd'\nlog_format = 'json'\n";
    let problems = merged(ServeFlags::default(), file).expect_err("bad");
    for part in [
        "listn",
        "listen",
        "home_timeline_cap",
        "boss",
        "redis is not set",
        "data_dir",
        "ROOST_LOG_FORMAT",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
    }
    assert_eq!(problems.len(), 7, "{problems:?}");
}

#[test]
fn a_role_alone_needs_what_processes_share() {
    let problems = merged(ServeFlags::default(), "role = 'api'").expect_err("bad");
    assert!(problems[0].contains("without kafka and redis"), "{problems:?}");
}

#[test]
fn a_property_may_hold_commas_wherever_it_is_set() {
    let value = "debug=broker,topic";
    let found = properties(&[value], "", "").expect("good");
    assert_eq!(found["debug"], "broker,topic");
    let found = properties(&[], &format!("\n  {value}\r\nclient.id=a=b\n"), "").expect("good");
    assert_eq!((found["debug"].as_str(), found["client.id"].as_str()), ("broker,topic", "a=b"));
    for file in [
        "[kafka_property]\ndebug = 'broker,topic'\n'client.id' = 'a'",
        "[kafka_property]\ndebug = ['broker', 'topic']\nclient.id = 'a'",
    ] {
        let found = properties(&[], "", file).expect("good");
        assert_eq!((found["debug"].as_str(), found["client.id"].as_str()), ("broker,topic", "a"));
    }
}

#[test]
fn each_property_is_taken_from_the_first_place_that_sets_it() {
    let file = "[kafka_property]\nclient.id = 'file'\nclient.rack = 'file'\ndebug = 'all'\n";
    let variable = "client.id=variable\nclient.rack=variable";
    let found = properties(&["client.id=flag"], variable, file).expect("good");
    assert_eq!(found["client.id"], "flag");
    assert_eq!(found["client.rack"], "variable");
    assert_eq!(found["debug"], "all");
}

#[test]
fn all_wrong_properties_are_named_and_nothing_that_may_be_a_password() {
    let flags = ["sasl.pasword=hunter2", "hunter2", "client.id=a", "client.id=b", "acks=0"];
    let variable = "socket.timeout.ms=soon\n=hunter2\n";
    let found = properties(&flags, variable, "listn = 1").expect_err("bad");
    for part in [
        "listn",
        "sasl.pasword",
        "--kafka-property, number 2, is not of the form KEY=VALUE",
        "--kafka-property, number 4, sets a property that is set there already",
        "acks",
        "socket.timeout.ms",
        "ROOST_KAFKA_PROPERTY, line 2, has no name",
    ] {
        assert!(found.iter().any(|problem| problem.contains(part)), "{part}: {found:?}");
    }
    assert_eq!(found.len(), 7, "{found:?}");
    assert!(!found.iter().any(|problem| problem.contains("hunter2")), "{found:?}");
    let without = "[kafka_property]\nclient.id = 'a'";
    let found = merged(ServeFlags::default(), without).expect_err("bad");
    assert_eq!(found, ["kafka_property is of no use without kafka and redis"]);
}

/// In each place a property comes from a file, or stands there itself.
#[test]
fn property_file_is_read_wherever_it_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let [flag, variable, file] = ["flag", "variable", "file"].map(|it| path(it, it));
    let merge = |named: &[&str], in_variable: &str, in_file: String| {
        let mut problems = Vec::new();
        let flags = ServeFlags {
            kafka: Some("a:1".to_owned()),
            redis: Some("redis://b".to_owned()),
            kafka_property: vec!["client.rack=itself".to_owned()],
            kafka_property_file: named.iter().map(|it| (*it).to_owned()).collect(),
            ..ServeFlags::default()
        };
        let variables =
            Variables { properties: String::new(), property_files: in_variable.to_owned() };
        let settings = flags.merge(&variables, in_file.parse().expect("TOML"), &mut problems);
        match settings.backend {
            Backend::Shared { kafka, .. } if problems.is_empty() => Ok(kafka.properties),
            _ => Err(problems),
        }
    };
    let in_file = format!("[kafka_property_file]\nsasl.password = '{file}'\n");
    let in_variable = format!("\nsasl.password={variable}\n");
    let named = format!("sasl.password={flag}");
    let found = merge(&[], "", in_file.clone()).expect("good");
    assert_eq!((&*found["sasl.password"], &*found["client.rack"]), ("file", "itself"));
    let found = merge(&[], &in_variable, in_file.clone()).expect("good");
    assert_eq!(found["sasl.password"], "variable");
    let found = merge(&[&named], &in_variable, in_file).expect("good");
    assert_eq!(found["sasl.password"], "flag");

    let twice = format!("client.rack={flag}");
    let found = merge(&[&twice, "sasl.password=/missing/x"], "x", String::new());
    let found = found.expect_err("bad");
    for part in ["client.rack", "sasl.password", "/missing/x", "line 1"] {
        assert!(found.iter().any(|problem| problem.contains(part)), "{part}: {found:?}");
    }
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn brokers_must_be_a_list_of_host_and_port() {
    let merge = |kafka: Option<&str>, file: &str| {
        let flags = ServeFlags {
            kafka: kafka.map(str::to_owned),
            redis: Some("redis://b".to_owned()),
            ..ServeFlags::default()
        };
        merged(flags, file)
    };
    for bad in ["kafka://a:1", "a:1 b:2", "a", "", "a:1,", "a:x"] {
        for found in [merge(Some(bad), ""), merge(None, &format!("kafka = '{bad}'"))] {
            let found = found.expect_err(bad);
            assert!(found[0].contains("host:port,host:port"), "{bad:?}: {found:?}");
        }
    }
    let found = merge(None, "kafka = ['a:1', 'kafka://b:2']").expect_err("a URL");
    assert!(found[0].contains("kafka://b:2"), "{found:?}");
    let settings = merge(None, "kafka = ['a:1', '[::1]:2']\nkafka_replication = 2");
    let Backend::Shared { kafka, .. } = settings.expect("good").backend else {
        panic!("not shared");
    };
    assert_eq!((&*kafka.brokers, kafka.replication), ("a:1,[::1]:2", Some(2)));
}
