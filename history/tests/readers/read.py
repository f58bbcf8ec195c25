"""Reads a folder of the history with DuckDB and with Polars, as docs/history.md says, and prints what both found."""

import json
import sys

import duckdb
import polars

files = sys.argv[1] + "/*.parquet"
rows = duckdb.sql(
    f"""SELECT sequence, epoch_ns(time), verdict, src_ip, src_port, src_pod_name, src_labels['app'],
    dst_dns_names, [it.name for it in ingress_policies], node_epoch, reply
    FROM '{files}' ORDER BY sequence"""
).fetchall()

frame = polars.scan_parquet(files).sort("sequence").with_columns(polars.col("time").dt.epoch("ns")).collect()


def other(row):
    # A map is a dictionary, or a list of keys and values, by the version of Polars.
    labels = row["src_labels"]
    if isinstance(labels, list):
        labels = {it["key"]: it["value"] for it in labels}
    policies = row["ingress_policies"]
    names = ["sequence", "time", "verdict", "src_ip", "src_port", "src_pod_name"]
    return [row[name] for name in names] + [
        labels and labels.get("app"),
        row["dst_dns_names"],
        policies and [it["name"] for it in policies],
        row["node_epoch"],
        row["reply"],
    ]


for row, found in zip(rows, frame.iter_rows(named=True), strict=True):
    assert list(row) == other(found), (row, other(found))
    print(json.dumps(row))
assert duckdb.sql(f"SELECT count(*) FROM '{files}' WHERE time::TIMESTAMPTZ < now()").fetchall()[0][0] == len(rows)
