//! Checks that the server of these tests provides what the rest of the system requires of a store: one of several
//! concurrent writers wins.

use antiphon_store::storage::install_crypto_provider;
use antiphon_testing_s3::{ACCESS_KEY, Server};
use futures::future::join_all;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, PutPayload, PutResult, UpdateVersion};

const WRITERS: usize = 16;

fn client_of(server: &Server) -> AmazonS3 {
    install_crypto_provider();
    AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_region("eu-north-1")
        .with_bucket_name("runs")
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key("any")
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .build()
        .expect("the settings are complete")
}

/// The answer to each of several concurrent writers, and the one whose content is there afterwards.
async fn race(client: &AmazonS3, path: &Path, round: usize, mode: PutMode) -> (Vec<Result<PutResult, Error>>, usize) {
    let writes = (0..WRITERS).map(|writer| {
        // The content differs each time, because a tag depends on the content.
        let payload = PutPayload::from(format!("{writer} {round}").into_bytes());
        client.put_opts(path, payload, mode.clone().into())
    });
    let told = join_all(writes).await;
    let found = client.get(path).await.expect("it is there").bytes().await.expect("it is read");
    let found = String::from_utf8_lossy(&found);
    let (winner, _) = found.split_once(' ').expect("two numbers");
    (told, winner.parse().expect("a writer's number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_that_create_or_replace_an_object_one_wins() {
    let server = Server::start().await;
    let (client, path) = (client_of(&server), Path::from("fence"));
    let mut mode = PutMode::Create;
    for round in 0..10 {
        let (told, winner) = race(&client, &path, round, mode).await;
        for (writer, told) in told.iter().enumerate() {
            match told {
                Ok(_) => assert_eq!(writer, winner, "round {round}"),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => assert_ne!(writer, winner),
                Err(error) => panic!("round {round}: {error}"),
            }
        }
        let won = told[winner].as_ref().expect("the winner is told so");
        mode = PutMode::Update(UpdateVersion { e_tag: won.e_tag.clone(), version: None });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_listed_by_their_names() {
    let server = Server::start().await;
    let client = client_of(&server);
    for path in ["a/1", "a/2", "a/b/3", "a/c/4", "a/c/5", "d"] {
        client.put(&Path::from(path), PutPayload::from_static(b"x")).await.expect("it is written");
    }
    let listed = client.list_with_delimiter(Some(&Path::from("a"))).await.expect("it lists");
    assert_eq!(listed.common_prefixes, [Path::from("a/b"), Path::from("a/c")]);
    let objects: Vec<Path> = listed.objects.into_iter().map(|object| object.location).collect();
    assert_eq!(objects, [Path::from("a/1"), Path::from("a/2")]);
    assert_eq!(server.keys().len(), 6);
}
