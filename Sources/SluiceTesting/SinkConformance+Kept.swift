import SluiceCore

extension SinkConformance {
    /// What a sink must do with rows that outlive their keys.
    func keptFailures(
        _ sink: any Sink, _ writer: inout BatchWriter,
    ) async throws -> [String] {
        var failures: [String] = []
        func counter(_ id: String) throws -> [String] {
            try values("value", "conform_counters", "WHERE id = '\(id)'")
        }
        func kept(_ id: String) throws -> [String] {
            try query("SELECT n, t FROM conform_kept WHERE id = '\(id)'")
                .first?.map { $0 ?? "null" } ?? []
        }
        func scores() throws -> [Double?] {
            try values("score", "conform_scores", "WHERE id = 'k' ORDER BY member").map(Double.init)
        }
        var batch = writer.batch { machine in
            machine.send("INCRBY", "c:k", "100")
            machine.send("SET", "c:d", "50")
            machine.send("HSET", "k:a", "n", "5", "t", "x")
            machine.send("HSET", "k:b", "n", "5", "t", "x")
            machine.send("ZADD", "z:k", "5", "m", "6", "n")
            machine.send("SADD", "w:a", "x")
        }
        _ = try await sink.apply(batch)
        batch = writer.batch { machine in
            machine.send(["DEL", "c:k"], .expired)
            machine.send(["DEL", "c:d"], nil)
            machine.send(["DEL", "k:a"], .evicted)
            machine.send(["DEL", "k:b"], .expired)
            machine.send(["DEL", "z:k"], .expired)
            machine.send(["DEL", "w:a"], .expired)
        }
        _ = try await sink.apply(batch)
        failures.expect(try counter("k") == ["100"], "an expired row is kept")
        failures.expect(try counter("d") == ["50"], "a row that went nobody knows why is kept")
        failures.expect(try kept("a") == ["5", "x"], "an evicted row is kept")
        failures.expect(try scores() == [5, 6], "the rows of an expired key are kept")
        failures.expect(
            try values("member", "conform_wiped").isEmpty, "a policy may delete what expired")

        batch = writer.batch { machine in
            machine.send("INCRBY", "c:k", "5")
            machine.send("INCRBY", "c:d", "3")
            machine.send("HSET", "k:a", "t", "y")
            machine.send("HINCRBY", "k:b", "n", "2")
            machine.send("ZINCRBY", "z:k", "2", "m")
        }
        _ = try await sink.apply(batch)
        failures.expect(try counter("k") == ["105"], "an add goes on top of a kept row")
        failures.expect(try counter("d") == ["3"], "a row kept in doubt starts afresh")
        failures.expect(try kept("a") == ["null", "y"], "a patch sets the other columns to null")
        failures.expect(try kept("b") == ["7", "null"], "an add leaves totals, and nothing else")
        failures.expect(try scores() == [7, 6], "an add goes on top of a kept member")

        batch = writer.batch { machine in
            machine.send("INCRBY", "c:k", "1")
            machine.send("HINCRBY", "k:a", "n", "4")
            machine.send("HSET", "k:b", "t", "z")
        }
        _ = try await sink.apply(batch)
        failures.expect(try counter("k") == ["106"], "… and so does the next")
        failures.expect(try kept("a") == ["4", "y"], "a row that came back changes as any other")
        failures.expect(try kept("b") == ["7", "z"], "a total goes on beside a patch")

        batch = writer.batch { machine in machine.send("SET", "c:k", "7") }
        _ = try await sink.apply(batch)
        batch = writer.batch { machine in
            machine.send("INCR", "c:k")
            machine.send("SADD", "w:a", "x")
        }
        _ = try await sink.apply(batch)
        failures.expect(try counter("k") == ["8"], "a put ends it")

        batch = writer.batch { machine in
            machine.send("FLUSHDB")
            machine.send("SADD", "w:a", "y")
            machine.send("ZADD", "z:k", "1", "m")
        }
        _ = try await sink.apply(batch)
        failures.expect(try counter("k") == ["8"], "a flush keeps rows")
        failures.expect(
            try values("member", "conform_wiped") == ["y"], "a policy may delete what was flushed")
        batch = writer.batch { machine in
            machine.send("INCR", "c:k")
            machine.send("ZINCRBY", "z:k", "3", "m")
            machine.send("HSET", "k:b", "t", "q")
        }
        _ = try await sink.apply(batch)
        failures.expect(
            try counter("k") == ["9"], "an add goes on top of a row that outlived a flush")
        failures.expect(try scores() == [4, 6], "a member put after a flush is as Redis has it")
        failures.expect(try kept("b") == ["null", "q"], "a patch after a flush starts afresh")

        batch = writer.batch { machine in
            machine.send("HSET", "k:a", "n", "8", "t", "u")
            machine.send("HSET", "k:b", "n", "8", "t", "u")
        }
        _ = try await sink.apply(batch)
        batch = writer.batch { machine in
            machine.send("HSET", "k:a", "t", "v")
            machine.send("HINCRBY", "k:b", "n", "1")
            machine.send("FLUSHDB")
        }
        _ = try await sink.apply(batch)
        failures.expect(
            try kept("a") == ["8", "v"], "a row that was patched before a flush keeps the rest")
        failures.expect(
            try kept("b") == ["9", "u"], "a row that was added to before a flush keeps the rest")

        failures += try await returnedFailures(sink, &writer)
        failures += try await trimmedFailures(sink, &writer)
        batch = writer.batch { machine in machine.send("DEL", "z:k") }
        _ = try await sink.apply(batch)
        failures.expect(try scores().isEmpty, "what the application removes goes, kept or not")
        return failures
    }

    // What comes first to a key that came back decides, whatever else comes in the same batch.
    private func returnedFailures(
        _ sink: any Sink, _ writer: inout BatchWriter,
    ) async throws -> [String] {
        var failures: [String] = []
        let keys = ["k:c", "k:d", "k:e", "k:f", "k:g"]
        _ = try await sink.apply(
            writer.batch { machine in
                for key in keys { machine.send("HSET", key, "n", "10", "t", "x", "r", "1") }
            })
        _ = try await sink.apply(
            writer.batch { machine in
                for key in keys.dropLast() { machine.send(["DEL", key], .expired) }
            })
        _ = try await sink.apply(
            writer.batch { machine in
                machine.send("HINCRBY", "k:c", "n", "5")
                machine.send("HSET", "k:c", "t", "y", "s", "2")
                machine.send("HSET", "k:d", "t", "y", "s", "2")
                machine.send("HINCRBY", "k:d", "n", "5")
                machine.send("HINCRBY", "k:e", "n", "5")
                machine.send("HSET", "k:e", "t", "y")
                machine.send(["DEL", "k:e"], .expired)
                machine.send("HINCRBY", "k:e", "n", "6")
                machine.send("HSET", "k:f", "other", "1")
                machine.send("HINCRBY", "k:f", "n", "5")
                machine.send(["DEL", "k:g"], .expired)
                machine.send("HINCRBY", "k:g", "n", "5")
                machine.send("HSET", "k:g", "t", "y", "s", "2")
            })
        func rows() throws -> [String] {
            try query("SELECT id, n, t, rest FROM conform_kept WHERE id >= 'c' ORDER BY id").map {
                $0.map { $0?.filter { $0 != " " } ?? "null" }.joined(separator: " ")
            }
        }
        var found = try rows()
        failures.expect(
            found == [
                #"c 15 y {"s":"2"}"#, #"d 5 y {"s":"2"}"#, "e 21 null null",
                #"f 5 null {"other":"1"}"#, #"g 15 y {"s":"2"}"#,
            ],
            "an add goes on top though a patch follows it, and not though it follows one: \(found)")

        _ = try await sink.apply(
            writer.batch { machine in
                machine.send("FLUSHDB")
                machine.send("HINCRBY", "k:c", "n", "5")
                machine.send("HSET", "k:c", "u", "3")
                machine.send(["DEL", "k:c"], .expired)
                machine.send("HSET", "k:d", "t", "z")
                machine.send(["DEL", "k:d"], .expired)
            })
        found = Array(try rows().prefix(2))
        failures.expect(
            found == [#"c 20 null {"u":"3"}"#, "d null z null"],
            "what comes after a flush, and goes in the same batch, decides too: \(found)")
        return failures
    }

    // The key's rows outlived a flush, and some came back: those alone go that a read did not find.
    private func trimmedFailures(
        _ sink: any Sink, _ writer: inout BatchWriter,
    ) async throws -> [String] {
        var failures: [String] = []
        func members() throws -> [String] {
            try values("member", "conform_scores", "WHERE id = 'k' ORDER BY member")
        }
        let (table, key) = (2, Array("z:k".utf8))
        let mapping = Self.mappings[table]
        _ = try await sink.apply(writer.batch { $0.send("ZADD", "z:k", "1", "p", "1", "q") })
        failures.expect(
            try members() == ["m", "n", "p", "q"], "members beside those that outlived")
        for isLast in [false, true] {
            var batch = writer.batch { machine in
                machine.send(isLast ? ["SET", "c:d", "1"] : ["ZADD", "z:k", "2", "q"], .deleted)
            }
            var changes =
                batch.tables.first { $0.table == table }
                ?? TableChanges(table: table, mapping: mapping)
            try changes.sweptKeys.append(RowIdentity(key: key), mapping)
            changes.sweptKeysIsUnknown.append(false)
            if !isLast { changes.clearsExcept = changes.puts.named }
            batch.tables.removeAll { $0.table == table }
            batch.tables.append(changes)
            _ = try await sink.apply(batch)
            let expected = isLast ? ["m", "n"] : ["m", "n", "q"]
            failures.expect(
                try members() == expected,
                "a read takes only those that came back: \(try members())")
        }
        return failures
    }
}

extension RowSet {
    /// The names alone.
    fileprivate var named: RowSet {
        var names = self
        names.values = []
        return names
    }
}
