//! Only the services that own tables are told where the database and the object store are.

use super::environment_of;
use crate::harness::{Node, Setup};

const OWNERS: [&str; 2] = ["service/mobile", "service/submissions"];
const MARKS: [&str; 2] = ["HYDRANT_RECORDS", "HYDRANT_OBJECTS"];

/// Every process that a node has started keeps the rule; tells how many may know.
fn check(node: &Node) -> usize {
    let knowing: Vec<u32> = OWNERS
        .iter()
        .flat_map(|owner| node.instances(owner))
        .filter_map(|one| u32::try_from(one["pid"].as_u64()?).ok())
        .collect();
    let mut told = 0;
    for pid in node.started().into_iter().chain([node.pid()]) {
        let environment = environment_of(pid);
        let knows = MARKS.iter().any(|mark| environment.contains(mark));
        assert_eq!(
            knows,
            knowing.contains(&pid),
            "process {pid}: {environment}"
        );
        told += usize::from(knows);
        assert!(!environment.contains("canary"), "a secret itself, in {pid}");
    }
    told
}

#[test]
fn credentials_are_in_the_environment_of_their_owners_alone() {
    let node = Setup::up().start();
    assert_eq!(check(&node), 4, "both processes of each owner know");

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let password = file("records.password", "canary-password\n");
    let credentials = file("objects.json", r#"{"canary": "canary"}"#);
    let text = format!(
        "[records]\nurl = \"mysql://hydrant@127.0.0.1:1/hydrant\"\npassword_file = {password:?}\n\n\
         [objects]\nurl = \"s3://images\"\nregion = \"eu\"\ncredentials_file = {credentials:?}\n"
    );
    let setup = Setup::up().config(&text);
    let mut node = setup.spawn();
    node.wait_ready();
    node.wait("both of each run", |node| {
        let run = |owner: &&str| node.instances(owner).len() == 2;
        OWNERS.iter().all(run).then_some(())
    });
    assert_eq!(check(&node), 4, "both processes of each owner know");
}
