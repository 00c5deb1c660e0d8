//! Seeding, against a private server with the service's own tables.

use std::fs;

use super::*;
use crate::command::workspace;

/// The statements that make the tables, as the service runs them.
fn tables() -> String {
    let directory = workspace().join("migrations/mysql");
    let mut migrations: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    migrations.sort();
    migrations.iter().map(|migration| fs::read_to_string(migration.join("up.sql")).unwrap()).collect()
}

/// A private server with the small logs of a test: three with those of a bench take more than 1.5 GB of disk.
fn small() -> Database {
    Database::started(&[]).unwrap()
}

#[test]
fn seeded_accounts_are_as_the_service_opens_them() {
    let database = small();
    query(database.url(), &tables()).unwrap();
    let count = SEEDED_AT_ONCE + 3;
    database.seed(Accounts { first: 5_000, count }, "100000000.00").unwrap();

    let sql = "SELECT COUNT(*), MIN(user_id), MAX(user_id), MIN(balance), MAX(balance), MIN(version), MAX(version) FROM accounts";
    let expected = ["100003", "5000", "105002", "100000000.00", "100000000.00", "1", "1"];
    assert_eq!(query(database.url(), sql).unwrap(), [expected]);
    // One OPEN for each account; an id of its own, the balance as its change, decided on nothing.
    let sql = "SELECT COUNT(*), COUNT(DISTINCT user_id, request_id), \
               SUM(version = 1 AND kind = 'OPEN' AND delta = balance_after AND version_before = 0 AND strategy = '') \
               FROM entries JOIN accounts USING (user_id, version) WHERE balance = balance_after";
    assert_eq!(query(database.url(), sql).unwrap(), [["100003", "100003", "100003"]]);
    let sql = "SELECT HEX(request_id), delta FROM entries WHERE user_id = 5000";
    assert_eq!(query(database.url(), sql).unwrap(), [["00000000000000000000000000001388", "100000000.00"]]);
}

#[test]
fn a_private_database_tells_what_it_is_and_keeps_every_commit() {
    let database = Database::private().unwrap();
    let Description { name, private, settings } = database.description();
    assert!(name.starts_with("MariaDB ") || name.starts_with("MySQL "), "{name}");
    assert!(*private && database.pid().is_some());
    assert_eq!(settings["innodb_flush_log_at_trx_commit"], "1");
    assert_eq!(settings["innodb_buffer_pool_size"], (1_u64 << 30).to_string());
    assert!(settings.contains_key("log_bin") && settings.contains_key("sync_binlog"), "{settings:?}");
}

#[test]
fn a_twin_is_another_database_on_the_same_server() {
    let database = small();
    let twin = database.twin().unwrap();
    assert_eq!(twin.pid(), database.pid());
    query(database.url(), "CREATE TABLE here (id INT)").unwrap();
    assert_eq!(query(twin.url(), "SHOW TABLES").unwrap(), Vec::<Vec<String>>::new());
    // The server runs for as long as either is there.
    drop(database);
    assert_eq!(query(twin.url(), "SELECT DATABASE()").unwrap(), [[TWIN]]);
}

#[test]
fn products_are_told_from_their_version() {
    for (version, name) in [
        ("10.11.19-MariaDB-0+deb12u1", "MariaDB 10.11.19"),
        ("11.4.2-MariaDB-log", "MariaDB 11.4.2"),
        ("9.7.0", "MySQL 9.7.0"),
        ("8.4.1-commercial", "MySQL 8.4.1"),
    ] {
        assert_eq!(product(version), name);
    }
}

#[test]
fn a_server_that_does_not_flush_is_refused_with_the_fix() {
    let settings = |value: &str| BTreeMap::from([("innodb_flush_log_at_trx_commit".to_owned(), value.to_owned())]);
    durable(&settings("1")).unwrap();
    for lax in [settings("2"), settings("0"), BTreeMap::new()] {
        let failure = durable(&lax).unwrap_err();
        assert!(failure.reason().contains("SET GLOBAL innodb_flush_log_at_trx_commit = 1"), "{failure:?}");
    }
}
