//! The variables of the environment, except for those that belong to an option of a command.

/// Variables of one subject.
#[derive(Debug)]
pub struct Variables {
    /// The subject, as a heading.
    pub subject: &'static str,
    /// A text about all of them.
    pub meaning: &'static str,
    /// The variables.
    pub variables: &'static [Variable],
}

/// A variable.
#[derive(Debug)]
pub struct Variable {
    /// Name in the environment.
    pub name: &'static str,
    /// The behaviour if it is not set, as Markdown; may be empty.
    pub default: &'static str,
    /// The effect of the variable, as Markdown.
    pub meaning: &'static str,
}

const fn variable(name: &'static str, default: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default, meaning }
}

/// Every variable that does not belong to an option.
pub static VARIABLES: &[Variables] = &[
    Variables { subject: "Logs, memory and threads", meaning: "Read by every command.", variables: PROGRAM },
    Variables {
        subject: "Stores",
        meaning: "Read by every program that opens a store: the coordinator, workers, and commands that read a checkpoint or data. \
                  Other variables of the same prefixes set further options of the client library \
                  ([`object_store`](https://docs.rs/object_store)).",
        variables: STORES,
    },
    Variables { subject: "Injected faults", meaning: "For tests of jobs whose store fails.", variables: FAULTS },
    Variables { subject: "Building with CUDA", meaning: "Read by the build with `--features cuda`.", variables: BUILD },
    Variables { subject: "Tests", meaning: "Read by the tests of the repository only.", variables: TESTS },
];

static PROGRAM: &[Variable] = &[
    variable(
        "RUST_LOG",
        "`info` for `coordinator` and `worker`, `error` for the others",
        "Filter of the log on standard error, as in `debug` or `antiphon_worker=debug,info`.",
    ),
    variable("NO_COLOR", "", "If set, `data inspect` and the logs of a server use no colours."),
    variable(
        "TMPDIR",
        "`/tmp`",
        "Folder for temporary files: samples beyond `--data-memory` and heads beyond `--replay-memory`. On a tmpfs, \
         these files use memory.",
    ),
    variable(
        "ANTIPHON_CACHE",
        "`$XDG_CACHE_HOME/antiphon/weights`, else `~/.cache/antiphon/weights`",
        "Folder in which fetched pretrained weights are cached.",
    ),
    variable(
        "RAYON_NUM_THREADS",
        "the number of cores",
        "Threads that encoders compute with. Results do not depend on it.",
    ),
    variable(
        "MIMALLOC_PURGE_DELAY",
        "`60000`",
        "Time in milliseconds after which freed memory is returned to the system; `0` returns it at once.",
    ),
    variable(
        "ANTIPHON_WITH_PARENT",
        "",
        "Set by `antiphon` for the child processes that it starts, so that they end with it. Not for users.",
    ),
];

static STORES: &[Variable] = &[
    variable("AWS_ACCESS_KEY_ID", "", "S3: access key."),
    variable("AWS_SECRET_ACCESS_KEY", "", "S3: secret key."),
    variable("AWS_SESSION_TOKEN", "", "S3: session token of temporary credentials."),
    variable("AWS_REGION", "`us-east-1`", "S3: region of the bucket."),
    variable("AWS_ENDPOINT_URL", "the endpoint of AWS", "S3: URL of another server, such as MinIO or Ceph."),
    variable("AWS_ALLOW_HTTP", "`false`", "S3: `true` allows a server without TLS."),
    variable("AWS_ROLE_ARN", "", "S3: role to assume with `AWS_WEB_IDENTITY_TOKEN_FILE`, as on Kubernetes."),
    variable("AWS_WEB_IDENTITY_TOKEN_FILE", "", "S3: file with the token of the role."),
    variable(
        "AWS_TIMEOUT",
        "no limit",
        "S3: time limit of each whole request, as in `60 seconds`, in addition to the built-in limits.",
    ),
    variable("GOOGLE_SERVICE_ACCOUNT", "", "Google Cloud Storage: path of the key file of a service account."),
    variable("GOOGLE_SERVICE_ACCOUNT_KEY", "", "Google Cloud Storage: the key itself, as JSON."),
    variable("AZURE_STORAGE_ACCOUNT_NAME", "", "Azure: storage account."),
    variable("AZURE_STORAGE_ACCOUNT_KEY", "", "Azure: key of the account."),
    variable("AZURE_STORAGE_CLIENT_ID", "", "Azure: client of a service principal, instead of a key."),
    variable("AZURE_STORAGE_CLIENT_SECRET", "", "Azure: secret of that client."),
    variable("AZURE_STORAGE_TENANT_ID", "", "Azure: tenant of that client."),
];

static FAULTS: &[Variable] = &[variable(
    "ANTIPHON_STORE_FAULTS",
    "no faults",
    "Makes every store that is opened for writing fail, as in `seed=7,errors=0.1,lost=0.05,slow=0.2,slow_ms=300,truncated=0.05`. \
     `errors`, `lost`, `slow` and `truncated` are shares of requests: refused, executed without an answer, delayed by `slow_ms` milliseconds on average, and answered with truncated data. `seed` determines the requests.",
)];

static BUILD: &[Variable] = &[
    variable("NVCC", "`$CUDA_HOME/bin/nvcc`, else `nvcc` from `PATH`", "The CUDA compiler."),
    variable("CUDA_HOME", "", "Folder of the CUDA toolkit."),
    variable("CUDA_COMPUTE_CAP", "that of the first GPU", "Compute capability to compile for, as in `90`."),
];

static TESTS: &[Variable] = &[
    variable(
        "UPDATE",
        "",
        "If set, tests rewrite golden files, generated code and these pages instead of comparing them.",
    ),
    variable(
        "ANTIPHON_TEST_CARD",
        "",
        "If set, tests of CUDA kernels fail where there is no GPU instead of being skipped.",
    ),
    variable("ANTIPHON_TEST_DATA", "", "Folder with public data sets, for tests that read them."),
    variable(
        "ANTIPHON_PYTORCH_REFERENCE",
        "",
        "Folder with the reference outputs of whole models that `model/tests/model/pytorch/reference.py` has computed \
         with PyTorch.",
    ),
    variable("ANTIPHON_SIMULATIONS", "", "Number of schedules that the simulation of `core` tries."),
    variable("ANTIPHON_SIMULATION_SEED", "", "The only schedule that the simulation of `core` tries."),
    variable("ANTIPHON_SIMULATION_TRACE", "", "File that this schedule is written to, or read back from."),
    variable("ANTIPHON_TEST_PRINT_BITS", "", "Set by tests for the child processes that they start."),
];
