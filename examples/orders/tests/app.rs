//! The app, as its users run it: each process is started, one is killed in the middle of its work, and the rest goes on.

use meshwork::prelude::*;
use orders::{History, Order, OrderError, OrdersRequester, Step};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// How long anything may take before the test fails. The machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process of the app, which ends with the test.
struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    fn start(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let (says, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if says.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the program says something")
    }

    /// Ends it as `kill -9` does.
    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Asks it to end, as a service manager does, and waits until it has ended well.
    fn end(&mut self) {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(asked.expect("there is a kill").success());
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The steps that the audit has heard, as its lines say them.
struct Heard(Program);

impl Heard {
    fn next(&self) -> (String, Step) {
        let line: serde_json::Value = serde_json::from_str(&self.0.line()).expect("it is JSON");
        assert_eq!(line["from"], "desk");
        let step = serde_json::from_value(line["step"].clone()).expect("it is a step");
        (line["topic"].as_str().expect("it is a text").to_owned(), step)
    }

    /// All steps up to and with this one.
    fn until(&self, last: &(String, Step)) -> Vec<(String, Step)> {
        let mut steps = Vec::new();
        while steps.last() != Some(last) {
            steps.push(self.next());
        }
        steps
    }
}

/// A request over HTTP/1.0, whose answer ends with the connection.
fn request(address: &str, method: &str, path: &str, body: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("the front listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let len = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
    )
    .expect("the front reads");
    BufReader::new(stream)
}

/// The status and the body of an answer.
fn answer(address: &str, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
    let mut text = String::new();
    request(address, method, path, body).read_to_string(&mut text).expect("the front answers");
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("it has a status");
    let (_, body) = text.split_once("\r\n\r\n").expect("it has a body");
    (status, serde_json::from_str(body).expect("it is JSON"))
}

fn placed(address: &str, key: &str, item: &str, count: u32) -> Order {
    let body = format!(r#"{{ "key": "{key}", "item": "{item}", "count": {count} }}"#);
    let (status, body) = answer(address, "POST", "/orders", &body);
    assert_eq!(status, 200, "{body}");
    serde_json::from_value(body).expect("it is an order")
}

fn progress(order: u64, worker: &str, percent: u8) -> (String, Step) {
    (format!("orders/{order}/progress"), Step::Progress { worker: worker.to_owned(), percent })
}

fn all_progress(order: u64, worker: &str) -> Vec<(String, Step)> {
    [0, 20, 40, 60, 80].map(|percent| progress(order, worker, percent)).to_vec()
}

fn made(order: u64, worker: &str) -> (String, Step) {
    (format!("orders/{order}/made"), Step::Made { worker: worker.to_owned() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_made_and_told_of_though_a_worker_is_killed() -> Result<(), Box<dyn std::error::Error>> {
    let master = MasterActor::new("master").start_on_thread()?;
    let address = master.listen(Listen::tcp("127.0.0.1:0")).await?.to_string();
    let mesh = [("MESHWORK_MASTER", &*address)];

    // The programs come in any order.
    let front = [("MESHWORK_MASTER", &*address), ("LISTEN", "127.0.0.1:0")];
    let mut front = Program::start(env!("CARGO_BIN_EXE_orders-front"), &[], &front);
    let http = front.line().strip_prefix("listens on ").expect("it says where").to_owned();
    let (status, body) =
        answer(&http, "POST", "/orders", r#"{ "key": "early", "item": "lamp", "count": 1 }"#);
    assert_eq!((status, &body["fate"]), (503, &"NotSent".into()), "{body}");

    let heard = Heard(Program::start(env!("CARGO_BIN_EXE_orders-audit"), &[], &mesh));
    let mut desk = Program::start(env!("CARGO_BIN_EXE_orders-desk"), &[], &mesh);
    // It takes an hour for each fifth of an order.
    let slow = [("MESHWORK_MASTER", &*address), ("MAKING_MS", "3600000")];
    let mut slow = Program::start(env!("CARGO_BIN_EXE_orders-worker"), &["slow"], &slow);
    for action in ["audit/history", "orders/place", "workshop/make"] {
        master.wait_for(action, PATIENCE).await?;
    }

    let first = placed(&http, "a", "lamp", 2);
    assert_eq!(heard.until(&progress(first.id, "slow", 0)).len(), 2);
    // It has no permit left, and says so.
    let busy = master.call::<()>("workshop/make", (&first, Callback::new(|_: Step| ()))).on("slow").await;
    assert!(matches!(&busy, Err(error) if error.fate() == Fate::NotSent), "{busy:?}");

    // Another worker makes the next order, while the first order waits for the first worker.
    let quick = [("MESHWORK_MASTER", &*address), ("MAKING_MS", "1")];
    let mut quick = Program::start(env!("CARGO_BIN_EXE_orders-worker"), &["quick"], &quick);
    let second = placed(&http, "b", "chair", 1);
    let of_second = heard.until(&made(second.id, "quick"));
    let placing = (format!("orders/{}/placed", second.id), Step::Placed);
    assert_eq!(
        of_second,
        [vec![placing], all_progress(second.id, "quick"), vec![made(second.id, "quick")]].concat()
    );

    // A browser that waits for the first order.
    let mut browser = request(&http, "GET", &format!("/orders/{}/steps", first.id), "").lines();
    let mut seen = move || {
        let step = browser
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("data: ")?.to_owned()));
        step.map(|step| serde_json::from_str::<Step>(&step).expect("it is a step"))
    };
    assert_eq!(seen(), Some(progress(first.id, "slow", 0).1));

    slow.kill();
    let of_first = heard.until(&made(first.id, "quick"));
    let lost = Step::Interrupted { code: "PROVIDER_LOST".to_owned(), fate: Fate::Unknown };
    let lost = (format!("orders/{}/interrupted", first.id), lost);
    let told = [vec![lost], all_progress(first.id, "quick"), vec![made(first.id, "quick")]].concat();
    assert_eq!(of_first, told);
    for (_, step) in told {
        assert_eq!(seen(), Some(step));
    }
    assert_eq!(seen(), None);
    let gone = master.call::<()>("workshop/make", (&first, Callback::new(|_: Step| ()))).on("slow").await;
    assert!(matches!(&gone, Err(error) if error.fate() == Fate::NotSent), "{gone:?}");

    // Placed again under its key, an order is not made again.
    let again = placed(&http, "a", "lamp", 2);
    assert_eq!((again.id, again.step), (first.id, made(first.id, "quick").1));
    let history: Vec<Step> = master.call("audit/history", History { id: first.id }).await?;
    assert_eq!(history.len(), 2 + 1 + 5 + 1);

    // The errors of the desk are of one type at both ends, and over HTTP.
    let many = r#"{ "key": "c", "item": "chair", "count": 20 }"#;
    assert_eq!(answer(&http, "POST", "/orders", many).0, 409);
    assert_eq!(answer(&http, "GET", "/orders/99", "").0, 404);
    let missing = OrdersRequester::new(&master).find(99).await;
    assert_eq!(missing, Err(OrderError::NotFound { id: 99 }));

    // Without the desk, nothing is placed, and the front says so.
    desk.kill();
    let (status, body) = answer(&http, "POST", "/orders", r#"{ "key": "late", "item": "lamp", "count": 1 }"#);
    assert_eq!((status, &body["fate"]), (503, &"NotSent".into()), "{body}");

    let Heard(mut audit) = heard;
    for program in [&mut front, &mut audit, &mut quick] {
        program.end();
    }
    Ok(())
}
