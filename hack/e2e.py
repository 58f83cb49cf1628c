#!/usr/bin/env python3
"""Runs upstream's end-to-end tests that are marked [Conformance] against a cluster, each in its own process.

Usage: hack/e2e.py run --e2e PROGRAM --kubeconfig FILE --from FILE [--keep REGEX] [--jobs N] [--limit SECONDS]
                       [--save FILE] [--logs DIR]
       hack/e2e.py list --e2e PROGRAM

PROGRAM is upstream's e2e.test (`hack/peer e2e.test` builds it). --from is a file with one test name per line.
--jobs tests run at once, those marked [Serial] alone and last. A test that takes longer than --limit is interrupted, cleans
up, and counts as `timeout`. --save appends a line `RESULT SECONDS NAME` for each test; --logs keeps the output of each.
"""
import argparse, concurrent.futures, os, re, signal, subprocess, sys, time

CLEANUP = 30  # Seconds that an interrupted test has to clean up.


def conformance_tests(program):
    """The full names of all tests marked [Conformance], sorted."""
    listed = subprocess.run([program, "--list-tests"], check=True, capture_output=True, text=True).stdout
    return sorted({found[1] for found in re.finditer(r"\.go:\d+: (.*\[Conformance\].*)", listed)})


def run_test(program, kubeconfig, name, limit, logs=None):
    """Runs one test; returns (passed | failed | timeout, seconds)."""
    command = [program, "--kubeconfig", kubeconfig, "--provider=skeleton", "--minStartupPods=-1", "--allowed-not-ready-nodes=-1",
               "--ginkgo.v", "--ginkgo.no-color", f"--ginkgo.focus={re.escape(name)}$"]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    try:
        output, _ = process.communicate(timeout=limit)
        # A name that matches no test also exits with 0.
        result = "passed" if process.returncode == 0 and "1 Passed" in output else "failed"
    except subprocess.TimeoutExpired:
        result = "timeout"
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=CLEANUP)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
    if logs:
        os.makedirs(logs, exist_ok=True)
        with open(os.path.join(logs, re.sub(r"\W+", "-", name)[:150] + ".log"), "w") as log:
            log.write(output)
    return result, time.monotonic() - began


def run_tests(program, kubeconfig, names, jobs, limit, save=None, logs=None):
    """Runs tests, prints and saves a line for each as it ends; returns how many did not pass."""
    failures = 0

    def report(name, result, seconds):
        nonlocal failures
        failures += result != "passed"
        print(f"{result:8}{seconds:7.1f} {name}", flush=True)
        if save:
            with open(save, "a") as out:
                out.write(f"{result} {seconds:.1f} {name}\n")

    serial = [name for name in names if "[Serial]" in name]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run_test, program, kubeconfig, name, limit, logs): name for name in names if name not in serial}
        for done in concurrent.futures.as_completed(running):
            report(running[done], *done.result())
    for name in serial:
        report(name, *run_test(program, kubeconfig, name, limit, logs))
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["list", "run"])
    parser.add_argument("--e2e", required=True)
    parser.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"))
    parser.add_argument("--from", dest="source")
    parser.add_argument("--keep", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=240)
    parser.add_argument("--save")
    parser.add_argument("--logs")
    options = parser.parse_args()
    names = conformance_tests(options.e2e)
    if options.source:
        with open(options.source) as file:
            wanted = set(file.read().splitlines())
        names = [name for name in names if name in wanted]
    names = [name for name in names if re.search(options.keep, name)]
    if options.action == "list":
        print("\n".join(names))
        return
    failures = run_tests(options.e2e, options.kubeconfig, names, options.jobs, options.limit, options.save, options.logs)
    print(f"{len(names) - failures} passed, {failures} failed")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
