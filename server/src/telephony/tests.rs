use super::*;

/// Records with an Account, and a key.
async fn records(dir: &tempfile::TempDir) -> (Records, AccountId, SecretKeys) {
    let records = Records::open(&dir.path().join("records")).await.unwrap();
    let account = records.create_account("Acme").await.unwrap().account;
    (records, account, SecretKeys::new([7; 32], &[]))
}

fn with_trunk(target: &str) -> Telephony {
    let json = serde_json::json!({ "trunks": { "pbx": { "targets": [target] } } });
    serde_json::from_value(json).unwrap()
}

fn targets(directory: &Directory, account: AccountId) -> Vec<String> {
    let Some(telephony) = directory.get(&account) else {
        return Vec::new();
    };
    let trunks = telephony.trunks.values();
    trunks
        .flat_map(|trunk| trunk.targets.iter().map(ToString::to_string))
        .collect()
}

#[tokio::test]
async fn a_server_learns_of_what_another_process_applies() {
    let dir = tempfile::tempdir().unwrap();
    let (records, account, keys) = records(&dir).await;
    let first = with_trunk("sip:a.example");
    let version = records
        .replace_telephony(account, 0, &first, &keys)
        .await
        .unwrap();

    let mut keeper = Keeper::start(records, keys.clone()).await.unwrap();
    let mut news = keeper.directory();
    assert_eq!(
        targets(&news.borrow_and_update(), account),
        ["sip:a.example"]
    );

    keeper.look().await.unwrap();
    assert!(!news.has_changed().unwrap(), "nothing is news");

    let elsewhere = Records::open(&dir.path().join("records")).await.unwrap();
    let second = with_trunk("sip:b.example");
    elsewhere
        .replace_telephony(account, version, &second, &keys)
        .await
        .unwrap();
    keeper.look().await.unwrap();
    assert!(news.has_changed().unwrap());
    assert_eq!(
        targets(&news.borrow_and_update(), account),
        ["sip:b.example"]
    );
}

#[tokio::test]
async fn a_secret_that_does_not_open_takes_its_row_alone_along() {
    let dir = tempfile::tempdir().unwrap();
    let (records, account, keys) = records(&dir).await;
    let mut telephony = with_trunk("sip:a.example");
    for trunk in telephony.trunks.values_mut() {
        trunk.password = Some(model::phone::rows::Secret::new("hush").unwrap());
    }
    records
        .replace_telephony(account, 0, &telephony, &keys)
        .await
        .unwrap();

    let stranger = SecretKeys::new([8; 32], &[]);
    let keeper = Keeper::start(records, stranger).await.unwrap();
    let directory = keeper.directory().borrow().clone();
    assert_eq!(targets(&directory, account), ["sip:a.example"]);
    let trunk = directory[&account].trunks.values().next().unwrap();
    assert_eq!(trunk.password, None);
}
