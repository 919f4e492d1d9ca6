//! Tokens, identities and the configuration file of a master, as operators use them.

use super::{Master, Running, Written, meshwork, one_line, run, stderr, stdout};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// A token, and its line in a file of identities.
fn token() -> (String, String) {
    let output = run(&mut meshwork(&["token", "orders"]));
    assert!(output.status.success(), "{output:?}");
    let told: Value = serde_json::from_str(&stdout(&output)).expect("a line of JSON");
    let text = |key: &str| told[key].as_str().expect("a text").to_owned();
    (text("token"), format!("tokens = [\"{}\"]", text("digest")))
}

/// Makes a file private, as a token file should be.
fn private(file: &Written) -> &str {
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).expect("it is ours");
    file.path()
}

#[test]
fn a_token_is_random_and_known_by_its_digest() {
    let ((one, line), (other, _)) = (token(), token());
    assert!(one != other && one.starts_with("mw_") && one.len() == 67, "{one}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.token");
    let path = file.to_str().unwrap();
    let output = run(&mut meshwork(&["token", "orders", "--out", path]));
    assert!(
        output.status.success() && !stdout(&output).contains("mw_"),
        "the token is not printed: {output:?}"
    );
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = run(&mut meshwork(&["token", "orders", "--out", path]));
    assert_eq!(again.status.code(), Some(2), "a file that is there is not written over");
    fs::write(&file, format!("{one}\n")).unwrap();
    let of_file = run(&mut meshwork(&["token", "orders", "--of", path]));
    let told: Value = serde_json::from_str(&stdout(&of_file)).unwrap();
    assert!(line.contains(told["digest"].as_str().unwrap()) && told["token"].is_null());
}

#[test]
fn identities_decide_who_binds_and_what_each_may_do() {
    let ((service, service_line), (person, person_line)) = (token(), token());
    let identities = Written::new(&format!(
        "[identities.service]\n{service_line}\noffer = [\"open\", \"shut\"]\n\
         [identities.alice]\n{person_line}\nbind = [\"*\"]\ncall = [\"open\"]\n"
    ));
    let master = Master::start(&["--identities", identities.path()]);
    let file = Written::new(&service);
    let named = ["--name", "service/1", "--token-file", private(&file)];
    let _open = master.respond("open", "echo 1", &named);
    let _shut = master.respond("shut", "echo 2", &["--name", "service/2", "--token-file", file.path()]);
    let run_as =
        |arguments: &[&str], token: &str| run(master.command(arguments).env("MESHWORK_TOKEN", token));
    assert_eq!(stdout(&run_as(&["call", "open"], &person)), "1\n");
    let denied = run_as(&["call", "shut"], &person);
    assert_eq!(denied.status.code(), Some(1));
    assert!(one_line(&denied).starts_with("NOT_PERMITTED (not sent)"), "{denied:?}");
    let actions = run_as(&["actions"], &person);
    assert!(one_line(&actions).contains("it may describe nothing"), "{actions:?}");
    for (arguments, token, words) in [
        (&["call", "open"][..], "guess", "the token is wrong"),
        (&["call", "open", "--name", "service/3"], &person, "belongs to another identity"),
        (&["call", "open"], &service, "it may bind under service, service/**"),
    ] {
        let refused = run_as(arguments, token);
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        let said = one_line(&refused);
        assert!(said.contains(words) && !said.contains(token), "{said}");
    }
    assert!(one_line(&master.run(&["call", "open"])).contains("a token is needed"));
}

#[test]
fn identities_are_read_again_on_sighup_and_wrong_ones_change_nothing() {
    let (token, line) = token();
    let identities = Written::new("");
    let write = |text: &str| fs::write(identities.path(), text).unwrap();
    let with = |call: &str| format!("[identities.alice]\n{line}\nbind = [\"*\"]\ncall = [\"{call}\"]\n");
    write(&with("a"));
    let mut master = Master::start(&["--identities", identities.path()]);
    let call = |master: &Master, action: &str| {
        let output = run(master.command(&["call", action]).env("MESHWORK_TOKEN", &token));
        one_line(&output).split(' ').next().unwrap().to_owned()
    };
    assert_eq!((&*call(&master, "a"), &*call(&master, "b")), ("ACTION_NOT_FOUND", "NOT_PERMITTED"));
    write(&with("b"));
    master.running.signal("-HUP");
    master.running.until_said("were read again");
    assert_eq!((&*call(&master, "a"), &*call(&master, "b")), ("NOT_PERMITTED", "ACTION_NOT_FOUND"));
    for (wrong, why) in [("[identities.alice]\ncall = [\"a*\"]\n", "line 2: "), ("identities", "line 1: ")] {
        write(wrong);
        master.running.signal("-HUP");
        master.running.until_said(why);
        assert_eq!((&*call(&master, "a"), &*call(&master, "b")), ("NOT_PERMITTED", "ACTION_NOT_FOUND"));
    }
    fs::remove_file(identities.path()).unwrap();
    master.running.signal("-HUP");
    master.running.until_said("cannot be read");
    assert_eq!(call(&master, "b"), "ACTION_NOT_FOUND");
    // The file that is deleted with the test is there again.
    write("");
}

#[test]
fn a_mistake_in_a_file_ends_with_2_and_its_line() {
    let (_, line) = token();
    for (flag, text, words) in [
        ("--identities", "[identities.a]\ncal = [\"a\"]", "line 2: unknown field `cal`"),
        ("--identities", "\n[identities.a]\nroles = [\"r\"]", "line 3: there is no role \"r\""),
        (
            "--identities",
            &format!("[identities.a]\n{line}\n[identities.b]\n{line}"),
            "line 4: this is the token of \"a\"",
        ),
        (
            "--identities",
            "[identities.a]\ntokens = [\"a secret\"]",
            "line 2: a token stands here as its digest",
        ),
        ("--config", "name = \"m\"\nlisen = []", "line 2: unknown field `lisen`"),
        ("--config", "[limits]\nin_flight_max = \"many\"", "line 2: invalid type"),
        ("--config", "[limits]\nin_flight = 7", "line 2: unknown field `in_flight`"),
        ("--config", "heartbeat = \"5\"", "line 1: \"5\" is no duration: write 100us"),
        ("--config", "busy_poll = \"1s\"", "line 1: a thread stays awake for at most 10ms"),
        ("--config", "arbiters = 0", "line 1: a master has 1 to 256 arbiters"),
        ("--config", "gateway = [\"smtp=a:1\"]", "line 1: \"smtp\" is none of the protocols"),
        ("--config", "balance = \"fair\"", "line 1: unknown variant `fair`"),
        ("--config", "token_file = \"a\"\nidentities = \"b\"", "each identity has tokens of its own"),
        ("--config", "identities = \"nowhere.toml\"", "nowhere.toml cannot be read"),
        ("--token-file", "secret\u{7}", "the token holds a control character"),
        ("--token-file", &"x".repeat(16_385), "a bind carries at most 16384"),
    ] {
        let file = Written::new(text);
        let output = run(&mut meshwork(&["master", "--listen", "127.0.0.1:0", flag, private(&file)]));
        assert_eq!(output.status.code(), Some(2), "{text}: {output:?}");
        let said = one_line(&output);
        assert!(said.contains(words) && !said.contains("secret"), "{text}: {said}");
    }
    let long = Written::new(&"x".repeat(16_385));
    let output = run(&mut meshwork(&["call", "a", "--token-file", private(&long)]));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let broken = run(meshwork(&["call", "a"]).env("MESHWORK_TOKEN", "secret\n"));
    assert!(one_line(&broken).contains("MESHWORK_TOKEN: the token ends with a line break"), "{broken:?}");
}

#[test]
fn a_token_file_that_all_may_read_is_warned_of() {
    let (token, line) = token();
    let file = Written::new(&token);
    let identities = Written::new(&format!("[identities.alice]\n{line}\n"));
    let check = |flag, path| run(&mut meshwork(&["master", "--check", flag, path]));
    for (mode, warned) in [(0o644, true), (0o600, false), (0o640, false)] {
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        let output = check("--token-file", file.path());
        assert!(output.status.success());
        assert_eq!(stderr(&output).contains("may read the token file"), warned, "{mode:o}: {output:?}");
        assert!(!stderr(&output).contains(&token));
    }
    for (mode, warned) in [(0o644, false), (0o666, true)] {
        fs::set_permissions(identities.path(), fs::Permissions::from_mode(mode)).unwrap();
        let output = check("--identities", identities.path());
        assert_eq!(
            stderr(&output).contains("may write to the identities file"),
            warned,
            "{mode:o}: {output:?}"
        );
    }
}

#[test]
fn a_token_for_one_side_of_a_bridge_is_never_shown_to_the_other() {
    let file = Written::new("shared");
    let old = Master::start(&["--token-file", private(&file), "--gateway", "node-mesh=127.0.0.1:0"]);
    let _echo = old.respond("echo", "cat", &["--token-file", file.path()]);
    let new = Master::start(&["--token-file", file.path()]);
    let server = format!("node-mesh={}", old.gateway());
    let bridge = ["bridge", &server, "--prefix", "old"];
    let refused = run(new.command(&bridge).env("MESHWORK_TOKEN", "shared"));
    assert_eq!(refused.status.code(), Some(3), "the server would have taken it: {refused:?}");
    assert!(stderr(&refused).contains("a token is needed"), "{refused:?}");
    let refused = run(new.command(&bridge).env("MESHWORK_SERVER_TOKEN", "shared"));
    assert!(stderr(&refused).contains("a token is needed"), "{refused:?}");
    let mut both = new.command(&bridge);
    both.env("MESHWORK_SERVER_TOKEN", "shared").env("MESHWORK_TOKEN", "shared");
    let _bridging = Running::of(both.spawn().expect("it starts"));
    let call = || run(new.command(&["call", "old/echo", "7"]).env("MESHWORK_TOKEN", "shared"));
    super::soon({
        let (address, call) = (new.address.clone(), ["call", "old/echo", "7"]);
        move || {
            while !run(meshwork(&call).args(["--master", &address]).env("MESHWORK_TOKEN", "shared"))
                .status
                .success()
            {}
        }
    });
    assert_eq!(stdout(&call()), "[7]\n");
}

#[test]
fn the_files_in_the_documentation_are_right() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/identities.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut blocks = page.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap());
    for name in ["identities.toml", "meshwork.toml"] {
        let block = blocks.next().unwrap_or_else(|| panic!("{name} is on the page"));
        assert!(block.starts_with(&format!("# {name}\n")), "{block}");
        fs::write(folder.path().join(name), block).unwrap();
    }
    let config = folder.path().join("meshwork.toml");
    let output = run(&mut meshwork(&["master", "--check", "--config", config.to_str().unwrap()]));
    assert_eq!(
        (stdout(&output).trim_end(), output.status.code()),
        (r#"{"checked":true}"#, Some(0)),
        "{output:?}"
    );
    for digest_of in ["orders", "alice"] {
        assert!(
            page.contains(&meshwork_digest(digest_of)),
            "the digest of the token {digest_of:?}, as the page has it"
        );
    }
}

/// The digest of a token, as the command line prints it.
fn meshwork_digest(token: &str) -> String {
    let file = Written::new(token);
    let output = run(&mut meshwork(&["token", "--of", private(&file)]));
    let told: Value = serde_json::from_str(&stdout(&output)).expect("a line of JSON");
    told["digest"].as_str().expect("a text").to_owned()
}

#[test]
fn a_flag_counts_before_the_configuration_file() {
    let config =
        Written::new("name = \"of the file\"\nlisten = [\"127.0.0.1:0\"]\n[limits]\nbind_within = \"1s\"\n");
    let mut master = Master::start(&["--config", config.path(), "--name", "of the flag"]);
    master.running.until_said("of the flag listens on");
}
