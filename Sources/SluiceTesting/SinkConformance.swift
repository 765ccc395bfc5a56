public import SluiceCore

/// What every sink must do. A test gives it a fresh sink and a way to look at the rows.
public struct SinkConformance {
    /// The tables that the sink must be made with.
    public static let mappings: [TableMapping] = [
        TableMapping(
            name: "conform_counters", keys: pattern("c:"), type: .string,
            columns: [Column(name: "value", type: .integer)], settledAt: "settled_at",
        ),
        TableMapping(
            name: "conform_hashes", keys: pattern("h:"), type: .hash,
            fields: [Array("n".utf8), Array("t".utf8)],
            columns: [Column(name: "n", type: .integer), Column(name: "t", type: .text)],
            rest: "rest", removal: .always(.mark("gone_at")),
        ),
        TableMapping(
            name: "conform_scores", keys: pattern("z:"), type: .sortedSet,
            columns: [Column(name: "score", type: .real)],
            member: Column(name: "member", type: .text),
        ),
        TableMapping(
            name: "conform_kept", keys: pattern("k:"), type: .hash,
            fields: [Array("n".utf8), Array("t".utf8)],
            columns: [Column(name: "n", type: .integer), Column(name: "t", type: .text)],
            rest: "rest",
        ),
        TableMapping(
            name: "conform_wiped", keys: pattern("w:"), type: .set,
            member: Column(name: "member", type: .text), removal: .always(.delete),
        ),
        TableMapping(
            name: "conform_events", keys: pattern("e:"), type: .stream,
            member: Column(name: "event", type: .text), rest: "payload",
        ),
    ]

    private static func pattern(_ prefix: String) -> KeyPattern {
        KeyPattern(segments: [
            .literal(Array(prefix.utf8)), .placeholder(Column(name: "id", type: .text)),
        ])
    }

    private let make: () -> any Sink
    let query: (String) throws -> [[String?]]

    /// Creates the suite.
    ///
    /// - Parameters:
    ///   - make: Makes a sink on the same database.
    ///   - query: Runs SQL there.
    public init(make: @escaping () -> any Sink, query: @escaping (String) throws -> [[String?]]) {
        self.make = make
        self.query = query
    }

    /// Runs all of it.
    ///
    /// - Returns: What is not as it must be, as sentences.
    public func failures() async throws -> [String] {
        var failures: [String] = []
        let sink = make()
        let stored = try await sink.open()
        let first = BatchWriter.first(stored)
        _ = try await sink.apply(first)
        var writer = BatchWriter(first.to)
        failures.expect(stored.checkpoint.position == nil, "a new database has no position")

        var batch = writer.batch { machine in
            machine.send("INCRBY", "c:a", "5")
            machine.send("HSET", "h:a", "n", "1", "t", "x", "o", "1")
            machine.send("ZADD", "z:a", "1.5", "m", "2.5", "n")
        }
        _ = try await sink.apply(batch)
        failures.expect(
            try values("value", "conform_counters") == ["5"], "an add to a missing row is a put")
        _ = try await sink.apply(batch)
        failures.expect(try values("value", "conform_counters") == ["5"], "a batch is applied once")

        batch = writer.batch { machine in
            machine.send("INCRBY", "c:a", "3")
            machine.send("HSET", "h:a", "t", "y", "p", "2")
            machine.send("ZINCRBY", "z:a", "0.1", "m")
        }
        _ = try await sink.apply(batch)
        failures.expect(try values("value", "conform_counters") == ["8"], "an add adds")
        failures.expect(try values("n", "conform_hashes") == ["1"], "a patch leaves other columns")
        failures.expect(try values("t", "conform_hashes") == ["y"], "a patch sets its column")
        let rest = try values("rest", "conform_hashes").first ?? ""
        failures.expect(
            rest.contains("\"o\"") && rest.contains("\"p\""), "a patch of the rest keeps its fields"
        )
        let score = try values("score", "conform_scores", "WHERE member = 'm'").first ?? ""
        failures.expect(Double(score) == 1.5 + 0.1, "a real is added as Redis adds it")

        let skipped = Batch(from: batch.from, to: writer.afterNext)
        await expectFenced(sink, skipped, "a batch that does not follow is fenced", &failures)

        batch = writer.batch { machine in
            machine.send("DEL", "h:a")
            machine.send("DEL", "z:a")
            machine.send("ZADD", "z:a", "7", "k")
            machine.send("DEL", "c:a")
        }
        _ = try await sink.apply(batch)
        failures.expect(try values("value", "conform_counters").isEmpty, "a removal deletes")
        failures.expect(
            try values("score", "conform_scores").map { Double($0) } == [7], "a clear spares puts")
        failures.expect(
            try values("count(gone_at)", "conform_hashes") == ["1"],
            "a mark leaves the row and marks")

        batch = writer.batch { machine in machine.send("HINCRBY", "h:a", "n", "4") }
        _ = try await sink.apply(batch)
        failures.expect(try values("n", "conform_hashes") == ["4"], "a marked row starts afresh")
        failures.expect(
            try values("t", "conform_hashes") == ["null"], "… with its other columns null")
        failures.expect(
            try values("count(gone_at)", "conform_hashes") == ["0"], "… and without the mark")

        failures += try await keptFailures(sink, &writer)
        batch = writer.batch { machine in machine.send("DEL", "c:k", "c:d") }
        _ = try await sink.apply(batch)

        failures += try await longNameFailures(sink, &writer)
        failures += try await letterFailures(sink, &writer)
        failures += try await eventFailures(sink, &writer)
        failures += try await comparedFailures(sink, &writer)
        batch = writer.batch { machine in machine.send("DEL", "c:p", "c:q") }
        _ = try await sink.apply(batch)

        let page = try await sink.page(table: 2, after: nil, limit: 10)
        failures.expect(
            page == [RowIdentity(key: Array("z:a".utf8), member: Array("k".utf8))],
            "a page names keys and members")
        let next = try await sink.page(table: 2, after: page.first, limit: 10)
        failures.expect(next.isEmpty, "the page after the last row is empty")

        await sink.close()
        let second = make()
        let restored = try await second.open()
        failures.expect(
            restored.checkpoint.position == batch.to.position, "the position is remembered")
        failures.expect(
            restored.checkpoint.epoch == stored.checkpoint.epoch + 1, "opening raises the epoch")
        let valued = restored.deadLetters.filter { $0.value != nil }
        failures.expect(
            valued.contains { $0.operation == .merge }
                && valued.allSatisfy { $0.value?.count ?? 0 <= DeadLetter.shortMax },
            "what was to be added is remembered with its letter, large values are not loaded")
        let gone = restored.deadLetters.filter { $0.code == Misfit.Code.vanished.rawValue }
        failures.expect(
            !gone.isEmpty && gone.allSatisfy { $0.value == nil },
            "what was known of a key before it went unread is no value for what comes")
        let late = writer.batch { machine in machine.send("INCR", "c:late") }
        await expectFenced(second, late, "a batch of an older epoch is fenced", &failures)
        failures.expect(
            try values("value", "conform_counters").isEmpty, "a fenced batch changes nothing")
        await second.close()
        return failures
    }

    private func eventFailures(
        _ sink: any Sink, _ writer: inout BatchWriter,
    ) async throws -> [String] {
        // A baseline reads entries again that are there.
        for _ in 0..<2 {
            let batch = writer.batch { machine in
                for id in ["9-9", "10-2", "10-11", "10-3"] {
                    machine.send("XADD", "e:a", id, "f", "v")
                }
            }
            let outcome = try await sink.apply(batch)
            if !outcome.refused.isEmpty { return ["entries that are there are no refusals"] }
        }
        let last = try await sink.lastEntries(
            table: 5, keys: [Array("e:none".utf8), Array("e:a".utf8)])
        return last == [nil, Array("10-11".utf8)]
            ? [] : ["the last entry is the one with the highest numbers, or nil: \(last)"]
    }

    private func comparedFailures(
        _ sink: any Sink, _ writer: inout BatchWriter,
    ) async throws -> [String] {
        var failures: [String] = []
        _ = try await sink.apply(writer.batch { $0.send("MSET", "c:p", "1", "c:q", "1") })
        let before = try values("settled_at", "conform_counters", "WHERE id = 'p'")
        var batch = writer.batch { $0.send("MSET", "c:p", "1", "c:q", "2") }
        batch.comparesPuts = true
        let outcome = try await sink.apply(batch)
        failures.expect(
            outcome.changed == 1, "of compared puts those that differ count: \(outcome.changed)")
        failures.expect(
            try values("settled_at", "conform_counters", "WHERE id = 'p'") == before,
            "a compared put that is no other is not written")
        failures.expect(
            try values("value", "conform_counters", "WHERE id = 'q'") == ["2"],
            "a compared put that differs is written")
        return failures
    }

    private func expectFenced(
        _ sink: any Sink, _ batch: Batch, _ sentence: String, _ failures: inout [String],
    ) async {
        do throws(SinkError) {
            _ = try await sink.apply(batch)
            failures.append(sentence)
        } catch {
            if error.response != .fenced { failures.append("\(sentence): \(error)") }
        }
    }

    func values(_ column: String, _ table: String, _ rest: String = "") throws -> [String] {
        try query("SELECT \(column) FROM \(table) \(rest)").map { $0[0] ?? "null" }
    }
}

extension [String] {
    /// Notes what does not hold.
    mutating func expect(_ holds: Bool, _ sentence: String) {
        if !holds { append(sentence) }
    }
}
