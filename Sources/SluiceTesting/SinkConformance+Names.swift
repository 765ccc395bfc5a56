import SluiceCore

extension SinkConformance {
    /// What a sink must do with names that no index of PostgreSQL takes: set aside, remember and forget
    /// the rows, and go on.
    func longNameFailures(
        _ sink: any Sink, _ writer: inout BatchWriter,
    ) async throws -> [String] {
        var failures: [String] = []
        // A page of the database makes short what repeats.
        var random = SplitMix64(seed: 1)
        func name(_ length: Int) -> String {
            String(
                (0..<length).map { _ in Character(Unicode.Scalar(random.pick(97..<123)) ?? "a") })
        }
        // With all that stands beside it in Sluice's own tables, it is too long; without, it is not.
        let (member, id) = (name(4_000), name(2_680))
        func count(_ table: String, _ condition: String) throws -> [String] {
            try values("count(*)", table, "WHERE \(condition)")
        }
        var batch = writer.batch { machine in
            machine.send("ZADD", "z:long", "1", member, "2", "m")
            machine.send("INCRBY", "c:\(id)", "5")
        }
        batch.loose = [
            LooseRow(
                table: "conform_counters", identity: RowIdentity(key: Array("c:\(id)".utf8)),
                offset: nil),
            LooseRow(
                table: "conform_counters", identity: RowIdentity(key: Array("c:1".utf8)),
                offset: nil, replaces: true),
            LooseRow(
                table: "conform_counters", identity: RowIdentity(key: Array("c:2".utf8)),
                offset: nil, lacksAdds: true),
        ]
        _ = try await sink.apply(batch)
        let isLetter = try count("sluice_dead_letters", "table_name = 'conform_scores'") == ["1"]
        failures.expect(
            try count("conform_scores", "id = 'long'") == [isLetter ? "1" : "2"],
            "a member of any length is written or set aside")
        failures.expect(
            try count("sluice_loose", "read_offset IS NULL") == ["1"], "a long name is loose")
        for (place, what) in [(-1, "replaces its row"), (-2, "lacks adds")] {
            failures.expect(
                try count("sluice_loose", "read_offset = \(place)") == ["1"],
                "what is read after a restart \(what)")
        }
        batch = writer.batch { machine in
            machine.send(["DEL", "c:\(id)"], .expired)
            machine.send("DEL", "z:long")
        }
        batch.loose = []
        batch.revived =
            isLetter
            ? [
                DeadLetter(
                    table: "conform_scores",
                    identity: RowIdentity(
                        key: Array("z:long".utf8), member: Array(member.utf8)),
                    code: "", message: "")
            ] : []
        _ = try await sink.apply(batch)
        failures.expect(
            try count("sluice_dead_letters", "table_name = 'conform_scores'") == ["0"],
            "the letter of a long name ends")
        failures.expect(
            try count("sluice_kept", "table_name = 'conform_counters' AND length(key) > 2000")
                == ["1"], "a row with a long name is remembered")
        batch = writer.batch { machine in machine.send("INCRBY", "c:\(id)", "1") }
        _ = try await sink.apply(batch)
        failures.expect(
            try values("value", "conform_counters", "WHERE id = '\(id)'") == ["6"],
            "… and found again: an add goes on top")
        batch = writer.batch { machine in machine.send("DEL", "c:\(id)") }
        _ = try await sink.apply(batch)
        failures.expect(
            try count(
                "sluice_kept",
                "table_name = 'conform_counters' AND length(key) > 2000 AND state < 4")
                == ["0"], "a row with a long name is forgotten")
        return failures
    }

    /// What a sink must do with dead letters that nobody can try: leave them, and try the others.
    func letterFailures(
        _ sink: any Sink, _ writer: inout BatchWriter,
    ) async throws -> [String] {
        func letter(
            _ table: String, _ id: Int, _ operation: DeadLetter.Operation = .put,
        ) -> DeadLetter {
            DeadLetter(
                table: table, identity: RowIdentity(key: Array("c:l\(id)".utf8)),
                operation: operation,
                value: Array("{\"value\":\"7\"}".utf8), code: "x", message: "")
        }
        var failures: [String] = []
        var batch = writer.batch { machine in machine.send("SET", "c:other", "1") }
        batch.deadLetters = (0..<20).map { letter("no_such_table", $0, $0 == 0 ? .merge : .put) }
        _ = try await sink.apply(batch)
        batch = writer.batch { machine in machine.send("DEL", "c:other") }
        batch.deadLetters = [letter("conform_counters", 0)]
        _ = try await sink.apply(batch)
        let outcome = try await sink.retry(LetterChoice(limit: 10), at: batch.to)
        failures.expect(
            outcome.written.map(\.table) == ["conform_counters"],
            "letters of a table that is not mapped hold up no others")
        failures.expect(
            try values("count(*)", "sluice_dead_letters", "WHERE table_name = 'no_such_table'")
                == ["20"], "… and stay")
        batch = writer.batch { machine in machine.send("DEL", "c:l0") }
        batch.deadLetters = (1...3).map { letter("conform_counters", $0) }
        _ = try await sink.apply(batch)
        var choice = LetterChoice()
        choice.bytesMax = 1
        var rounds: [Int] = []
        repeat {
            let outcome = try await sink.retry(choice, at: batch.to)
            rounds.append(outcome.written.count)
            choice.isDueOnly = true
            if !outcome.hasMore { break }
        } while rounds.count < 9
        failures.expect(rounds == [1, 1, 1], "large values are tried a few at a time: \(rounds)")
        failures += try await vanishedFailures(sink, &writer)
        batch = writer.batch { machine in machine.send("DEL", "c:l1", "c:l2", "c:l3") }
        _ = try await sink.apply(batch)
        return failures
    }

    // The letter of a key that went before it could be read knows no value.
    private func vanishedFailures(
        _ sink: any Sink, _ writer: inout BatchWriter,
    ) async throws -> [String] {
        let row = RowIdentity(key: Array("c:l1".utf8))
        let gone = DeadLetter(
            table: "conform_counters", identity: row, code: Misfit.Code.vanished.rawValue,
            message: "")
        let isThere = "WHERE table_name = 'conform_counters'"
        var failures: [String] = []
        for (operation, value) in [(DeadLetter.Operation.put, "7"), (.merge, "8")] {
            let text = "{\"value\":\"\(value)\"}"
            for letter in [
                DeadLetter(
                    table: "conform_counters", identity: row, operation: operation,
                    value: Array(text.utf8), code: "x", message: ""), gone,
            ] {
                var batch = writer.batch { machine in machine.send("INCRBY", "c:other", "1") }
                batch.deadLetters = [letter]
                _ = try await sink.apply(batch)
            }
            failures.expect(
                try values("value", "sluice_dead_letters", isThere) == [text]
                    && values("operation", "sluice_dead_letters", isThere) == [operation.rawValue]
                    && values("code", "sluice_dead_letters", isThere) == [gone.code],
                "what a letter had stays when the key goes before a later value is read")
            let batch = writer.batch { machine in machine.send("INCRBY", "c:other", "1") }
            _ = try await sink.apply(batch)
            let outcome = try await sink.retry(LetterChoice(), at: batch.to)
            failures.expect(
                outcome.written.isEmpty && outcome.unread.map(\.identity) == [row],
                "… and is not written")
        }
        let batch = writer.batch { machine in machine.send("DEL", "c:other") }
        _ = try await sink.apply(batch)
        return failures
    }
}
