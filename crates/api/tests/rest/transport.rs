//! The listener's limits, and the client over a real socket.

use std::time::Duration;

use api::client::{Client, ClientError};
use model::Secret;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::support::TestApi;

/// Serves the router; dropping the sender shuts down.
async fn listen(api: &TestApi) -> (String, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let router = api.router.clone();
    let served = tokio::spawn(async move {
        api::serve(listener, router, async {
            let _ = stopped.await;
        })
        .await;
    });
    (address, stop, served)
}

#[tokio::test]
async fn the_client_speaks_the_api() {
    let api = TestApi::start().await;
    let (address, stop, served) = listen(&api).await;
    let base = format!("http://{address}/");
    let client = Client::new(&base, Secret::new(api.key.clone())).unwrap();
    let made = client.post("/core/trunks", Some(&json!({"name": "a & b"}))).await.unwrap().body;
    let path = format!("/core/trunks/{}", made["id"].as_str().unwrap());
    client.post("/core/trunks", Some(&json!({"name": "c"}))).await.unwrap();
    assert_eq!(client.get("/core/trunks", &[("name", "a & b")]).await.unwrap().body, json!([made]));
    let page = client.get("/core/trunks", &[("limit", "1")]).await.unwrap();
    let cursor = page.next_cursor.unwrap();
    let rest = client.get("/core/trunks", &[("limit", "1"), ("cursor", &cursor)]).await.unwrap();
    assert_eq!((rest.body, rest.next_cursor), (json!([made]), None));
    assert_eq!(client.put(&path, &json!({"name": "d"})).await.unwrap().body["name"], "d");
    let refused = client.put(&path, &json!({"name": ""})).await.unwrap_err();
    assert_eq!(refused.status(), Some(422));
    assert!(refused.to_string().starts_with("name "), "{refused}");
    assert_eq!(client.delete(&path).await.unwrap().body, json!(null));
    assert_eq!(client.get(&path, &[]).await.unwrap_err().status(), Some(404));
    let token = api
        .store
        .create_token("ann@example.com", &[api.organization], model::Scope::ALL, None)
        .await
        .unwrap();
    let client = Client::new(&base, token.token).unwrap();
    assert_eq!(client.get("/core/trunks", &[]).await.unwrap_err().status(), Some(401));
    client.in_organization(api.organization).get("/core/trunks", &[]).await.unwrap();
    drop(stop);
    served.await.unwrap();
    let client = Client::new(&base, Secret::new(api.key.clone())).unwrap();
    assert!(matches!(client.get("/healthz", &[]).await, Err(ClientError::Unreachable { .. })));
    for bad in ["", "127.0.0.1:8080", "ftp://a.example", "https://"] {
        assert!(
            matches!(Client::new(bad, Secret::new(String::new())), Err(ClientError::Address(_))),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_request_head_that_never_ends_closes_the_connection() {
    let api = TestApi::start().await;
    let (address, _stop, _served) = listen(&api).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let mut slow = TcpStream::connect(&address).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").await.unwrap();
    let mut rest = Vec::new();
    let before = std::time::Instant::now();
    tokio::time::pause();
    let closed =
        tokio::time::timeout(api::HEAD_TIMEOUT + Duration::from_secs(5), slow.read_to_end(&mut rest)).await;
    closed.expect("the connection is closed in time").unwrap();
    assert!(before.elapsed() < api::HEAD_TIMEOUT, "time was virtual");
}
