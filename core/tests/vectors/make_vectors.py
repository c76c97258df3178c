#!/usr/bin/env python3
"""Makes the numbers that core's mathematics is tested against, in float64 and from the definitions alone.

It reads inputs.json (numbers that were drawn once: rows, logits, data, starting parameters) and writes rls.json,
fusion.json, trace.json and rng.json beside it. Python alone is enough: matrices are lists of rows here, sums run from left to
right, nothing is clever, so that a reader can compare each line with the equation that it is.

    python3 make_vectors.py            write the files
    python3 make_vectors.py --check    compare them with what would be written; exit 1 if they differ
"""
import hashlib
import json
import math
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


# ------------------------------------------------------------------ matrices
def dot(u, v):
    return sum(a * b for a, b in zip(u, v))


def transpose(a):
    return [list(column) for column in zip(*a)]


def times(a, b):
    columns = transpose(b)
    return [[dot(row, column) for column in columns] for row in a]


def combine(f, a, b):
    """f of each pair of elements of two vectors or two matrices."""
    return [combine(f, x, y) if isinstance(x, list) else f(x, y) for x, y in zip(a, b)]


def identity(n):
    return [[1.0 if i == j else 0.0 for j in range(n)] for i in range(n)]


def norm(a):
    return math.sqrt(sum(x * x for row in a for x in row))


def trace(a):
    return sum(row[i] for i, row in enumerate(a))


def inverse(a):
    """Gauss and Jordan, taking the largest pivot of each column."""
    n = len(a)
    rows = [list(row) + unit for row, unit in zip(a, identity(n))]
    for column in range(n):
        pivot = max(range(column, n), key=lambda i: abs(rows[i][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        head = rows[column][column]
        rows[column] = [x / head for x in rows[column]]
        for i in range(n):
            factor = rows[i][column]
            if i != column:
                rows[i] = [x - factor * y for x, y in zip(rows[i], rows[column])]
    return [row[n:] for row in rows]


# ----------------------------------------------------------------- projector
def fold(p, h, alpha):
    """k = P h;  P <- P - k k' / (alpha + h' k)"""
    k = [dot(row, h) for row in p]
    scale = alpha + dot(h, k)
    return [[x - a * b / scale for x, b in zip(row, k)] for row, a in zip(p, k)]


def closed_form(rows, alpha, s):
    """P = (I + (1/alpha) sum of h h')^-1"""
    total = identity(s)
    for h in rows:
        total = [[x + a * b / alpha for x, b in zip(row, h)] for row, a in zip(total, h)]
    return inverse(total)


def decayed_alpha(i, n):
    """0.1 -> 0.01 within an epoch of n batches"""
    return 0.1 ** (1.0 + i / n)


def rls_vectors(given):
    gradient, s = given["gradient"], len(given["gradient"][0])
    p, steps = identity(s), []
    for t, h in enumerate(given["rows"]):
        alpha = decayed_alpha(t % given["batches_per_epoch"], given["batches_per_epoch"])
        p = fold(p, h, alpha)
        steps.append({"h": h, "alpha": alpha, "projector": p, "projected": times(gradient, p)})
    alpha, rows = given["constant_alpha"], given["rows"][: given["constant_rows"]]
    constant = {"alpha": alpha, "rows": rows, "projector": closed_form(rows, alpha, s)}
    return {"s": s, "gradient": gradient, "steps": steps, "constant_alpha": constant}


# -------------------------------------------------------------------- fusion
def softmax(z):
    top = max(z)
    e = [math.exp(x - top) for x in z]
    total = sum(e)
    return [x / total for x in e]


def entropy(z):
    return -sum(p * math.log(p) for p in softmax(z) if p > 0.0)


def fusion_vectors(given):
    logits, present = given["logits"], given["present"]
    modalities, samples, classes = range(len(logits)), range(len(logits[0])), range(len(logits[0][0]))
    entropies = [[entropy(z) for z in row] for row in logits]
    weights = [[0.0 for _ in samples] for _ in modalities]
    fused = []
    for i in samples:
        raw = [math.exp(-entropies[m][i]) if present[m][i] else 0.0 for m in modalities]
        for m in modalities:
            weights[m][i] = raw[m] / sum(raw)
        fused.append([sum(weights[m][i] * logits[m][i][c] for m in modalities) for c in classes])
    answers = [row.index(max(row)) for row in fused]
    return {"logits": logits, "present": present, "entropy": entropies, "weights": weights, "fused": fused, "argmax": answers}


# --------------------------------------------------------------- a whole run
def affine(x, w, b):
    """x (B, n), w (m, n), b (m) -> (B, m)"""
    return [[dot(row, v) + c for v, c in zip(w, b)] for row in x]


def encode(p, x):
    """Two linear layers with a ReLU between; returns the middle too, for the way back."""
    middle = [[max(v, 0.0) for v in row] for row in affine(x, p["w1"], p["b1"])]
    return middle, affine(middle, p["w2"], p["b2"])


def encoder_gradients(p, x, middle, dh):
    dmiddle = combine(lambda d, a: d if a > 0.0 else 0.0, times(dh, p["w2"]), middle)
    return {
        "w2": times(transpose(dh), middle), "b2": [sum(c) for c in transpose(dh)],
        "w1": times(transpose(dmiddle), x), "b1": [sum(c) for c in transpose(dmiddle)],
    }


def sgd(p, v, g, lr, momentum, decay):
    """v <- momentum v + (g + decay p);  p <- p - lr v"""
    for name in p:
        pulled = combine(lambda gi, pi: gi + decay * pi, g[name], p[name])
        v[name] = combine(lambda vi, xi: momentum * vi + xi, v[name], pulled)
        p[name] = combine(lambda pi, vi: pi - lr * vi, p[name], v[name])


def zeros_like(p):
    return {name: combine(lambda x, _: 0.0 * x, a, a) for name, a in p.items()}


def copy(p):
    return {name: combine(lambda x, _: x, a, a) for name, a in p.items()}


def head_gradients(w, h, labels):
    z = affine(h, w["w"], w["b"])
    p = [softmax(row) for row in z]
    loss = sum(-math.log(row[y]) for row, y in zip(p, labels)) / len(labels)
    errors = [[(q - (c == y)) / len(labels) for c, q in enumerate(row)] for row, y in zip(p, labels)]
    return loss, errors, {"w": times(transpose(errors), h), "b": [sum(c) for c in transpose(errors)]}


def run(config, start, data, labels):
    order, s, projection = config["order"], config["s"], config["projection"]
    applies_to = projection.get("apply_to")
    encoders = {m: copy(start["encoders"][m]) for m in order}
    velocities = {m: zeros_like(encoders[m]) for m in order}
    head = copy(start["head"])
    head_velocity = zeros_like(head)
    p, window, turns = identity(s), [], []
    for t in range(config["turns"]):
        m, cycle = order[t % len(order)], t // len(order)
        batch = [(i + cycle * config["batch"]) % len(labels[m]) for i in range(config["batch"])]
        x, y = [data[m][i] for i in batch], [labels[m][i] for i in batch]
        middle, h = encode(encoders[m], x)
        loss, errors, g = head_gradients(head, h, y)
        dh, before, raw_norm = times(errors, head["w"]), head["w"], norm(g["w"])
        if projection["kind"] == "window":
            p = closed_form([row for owner, row in window if owner != m], projection["alpha"], s)
        if applies_to == "gradient":
            g["w"] = times(g["w"], p)
        sgd(head, head_velocity, g, config["head"]["lr"], config["head"]["momentum"], config["head"]["weight_decay"])
        if applies_to == "update":
            step = times(combine(lambda new, old: new - old, head["w"], before), p)
            head["w"] = combine(lambda old, by: old + by, before, step)
        mean = [sum(c) / len(h) for c in transpose(h)]
        if projection["kind"] == "rls":
            p = fold(p, mean, projection["alpha"])
        elif projection["kind"] == "window":
            window = (window + [(m, mean)])[-projection["window"]:]
        sgd(encoders[m], velocities[m], encoder_gradients(encoders[m], x, middle, dh), **config["encoder"])
        update = norm(combine(lambda new, old: new - old, head["w"], before))
        turns.append({"turn": t, "modality": m, "loss": loss, "raw_grad_norm": raw_norm,
                      "head_update_norm": update, "projector_trace": trace(p)})
    return {"config": config, "start": start, "turns": turns,
            "end": {"head": head, "projector": p, "encoders": encoders}}


def trace_vectors(given):
    data, labels = given["data"], given["labels"]
    runs = {name: run({**given["config"], "projection": projection}, given["start"], data, labels)
            for name, projection in given["projections"].items()}
    return {"data": data, "labels": labels, "runs": runs}


# ------------------------------------------------------------ random numbers
def chacha8_block(key, counter):
    """One 64-byte block of ChaCha with 8 rounds, a 64-bit counter and stream 0 (Bernstein 2008)."""
    def word(b, i):
        return int.from_bytes(b[4 * i: 4 * i + 4], "little")

    first = [word(b"expand 32-byte k", i) for i in range(4)] + [word(key, i) for i in range(8)]
    first += [counter & 0xFFFFFFFF, counter >> 32, 0, 0]
    x = list(first)

    def quarter(a, b, c, d):
        for to, by, turned, places in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[to] = (x[to] + x[by]) & 0xFFFFFFFF
            v = x[turned] ^ x[to]
            x[turned] = ((v << places) | (v >> (32 - places))) & 0xFFFFFFFF

    for _ in range(4):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return b"".join(((a + b) & 0xFFFFFFFF).to_bytes(4, "little") for a, b in zip(x, first))


def stream_numbers(seed, path, count):
    key = hashlib.sha256(b"antiphon.rng.v1" + seed.to_bytes(8, "little"))
    for part in path:
        if isinstance(part, str):
            text = part.encode()
            key.update(b"\0" + len(text).to_bytes(8, "little") + text)
        else:
            key.update(b"\1" + part.to_bytes(8, "little"))
    blocks = b"".join(chacha8_block(key.digest(), i) for i in range(count // 8 + 1))
    return [int.from_bytes(blocks[8 * i: 8 * i + 8], "little") for i in range(count)]


def rng_vectors(given):
    return [{**case, "numbers": stream_numbers(case["seed"], case["path"], 20)} for case in given]


# ---------------------------------------------------------------------- files
def vectors():
    given = json.loads((FOLDER / "inputs.json").read_text())
    return {
        "rls.json": rls_vectors(given["rls"]), "fusion.json": fusion_vectors(given["fusion"]),
        "trace.json": trace_vectors(given["trace"]), "rng.json": rng_vectors(given["rng"]),
    }


def differences(path, a, b):
    """Where two values differ by more than the last bits, in which sums of another order may."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(f"{path}.{key}", a[key], b[key])]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i in range(len(a)) for d in differences(f"{path}[{i}]", a[i], b[i])]
    if isinstance(a, float) and isinstance(b, float):
        return [] if abs(a - b) <= 1e-12 + 1e-9 * abs(b) else [f"{path}: {a} is not {b}"]
    return [] if a == b else [f"{path}: {a!r} is not {b!r}"]


def main():
    wrong = []
    for name, value in vectors().items():
        if "--check" in sys.argv[1:]:
            wrong += differences(name, json.loads((FOLDER / name).read_text()), value)
        else:
            (FOLDER / name).write_text(json.dumps(value) + "\n")
    if wrong:
        sys.exit("\n".join(wrong[:20]))


if __name__ == "__main__":
    main()
