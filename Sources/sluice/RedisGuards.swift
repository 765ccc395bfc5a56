import Foundation
import NIOPosix
import SluiceConfiguration
import SluiceCore
import SluiceRedis

/// What of a server's settings and data would cost rows, or time.
struct RedisGuards {
    let reader: KeyReader
    let info: ServerInfo
    let configuration: Configuration

    private typealias Finding = CheckCommand.Finding

    private func warning(_ subject: String, _ message: String, _ hint: String) -> Finding {
        Finding(level: .warning, subject: subject, message: message, hint: hint)
    }

    /// What the settings say, for `check` and the start of `run`.
    func settings() async -> [CheckCommand.Finding] {
        let fsync = await setting("appendfsync")
        var findings = persistence(fsync)
        if fsync == nil {
            findings.append(
                warning(
                    "redis.settings",
                    "Redis does not let this user read its settings, so that nobody looked at "
                        + "appendfsync, min-replicas-to-write and client-output-buffer-limit",
                    "ACL SETUSER \((try? configuration.endpoint())?.user ?? "default") +config|get")
            )
        }
        if let policy = info["maxmemory_policy"], policy != "noeviction", info["maxmemory"] != "0" {
            findings.append(eviction(policy))
        }
        if configuration.redis.capture.isExact,
            let count = await setting("min-replicas-to-write").flatMap(Int.init), count > 0
        {
            findings.append(
                warning(
                    "redis.min_replicas",
                    "min-replicas-to-write is \(count), and Sluice counts as a replica: it can hide "
                        + "that a real one is gone, and alone it stops writes while it is away",
                    "CONFIG SET min-replicas-to-write \(count + 1), unless it counts Sluice already"
                ))
        }
        if !configuration.redis.configures, configuration.tables.contains(where: \.needsCause),
            let flags = await setting("notify-keyspace-events"), !KeyEvents.isEnough(flags)
        {
            findings.append(
                warning(
                    "redis.key_events",
                    "nobody will know why keys go, so that rows of deleted keys stay",
                    "CONFIG SET notify-keyspace-events \(flags)\(KeyEvents.flags)"))
        }
        return findings
    }

    /// What takes a second and a look at some keys, for `check`.
    func measurements() async -> [CheckCommand.Finding] {
        await backlog() + outputBuffer() + sample()
    }

    // What a full buffer costs Redis, whose own settings bound it.
    private func outputBuffer() async -> [Finding] {
        guard configuration.redis.capture.isExact,
            let words = await setting("client-output-buffer-limit")?.split(separator: " "),
            let place = words.firstIndex(where: { $0 == "slave" || $0 == "replica" }),
            place + 3 < words.count, let hard = Int(words[place + 1]),
            let soft = Int(words[place + 2])
        else { return [] }
        let bound =
            hard == 0
            ? "without limit"
            : "up to \(hard >> 20) MB, or \(soft >> 20) MB for \(words[place + 3]) s"
        return [
            Finding(
                level: .ok, subject: "redis.output_buffer",
                message:
                    "while the database is away and the buffer is full, Redis holds the stream "
                    + "\(bound); then it cuts the link, and the rest comes by resynchronisation",
                hint: "CONFIG SET client-output-buffer-limit 'replica 1gb 512mb 300' holds more")
        ]
    }

    private func persistence(_ fsync: String?) -> [Finding] {
        if info["aof_enabled"] == "0" {
            let age = info["rdb_last_save_time"].flatMap(Int.init).map {
                max(0, Int(Date().timeIntervalSince1970) - $0)
            }
            return [
                warning(
                    "redis.persistence",
                    "without an AOF, a crash of Redis loses what Sluice had not received, and all "
                        + "that is newer than its last snapshot: at this moment "
                        + (age.map { "\($0) seconds" } ?? "nobody says how many seconds"),
                    "CONFIG SET appendonly yes")
            ]
        }
        guard fsync == "no" else { return [] }
        return [
            warning(
                "redis.persistence",
                "appendfsync is no: a crash of the machine loses up to 30 seconds of writes that "
                    + "Sluice had not received",
                "CONFIG SET appendfsync everysec (one second) or always (none)")
        ]
    }

    private func eviction(_ policy: String) -> Finding {
        if configuration.tables.contains(where: { $0.removal.onEvict == .delete }) {
            return warning(
                "redis.eviction",
                "maxmemory-policy is \(policy), and a table deletes the rows of evicted keys",
                "CONFIG SET maxmemory-policy noeviction, or on_evict: keep for such tables")
        }
        return warning(
            "redis.eviction",
            "maxmemory-policy is \(policy): a key may be evicted before a row that must be read back "
                + "is read; such a row becomes a dead letter (key.vanished)",
            "CONFIG SET maxmemory-policy noeviction, or give Redis more memory")
    }

    private func backlog() async -> [Finding] {
        guard configuration.redis.capture.isExact,
            let size = info["repl_backlog_size"].flatMap(Int64.init),
            let perMinute = await bytesPerMinute()
        else { return [] }
        let wanted = max(64 << 20, perMinute)
        guard size < wanted else { return [] }
        return [
            warning(
                "redis.backlog",
                "repl-backlog-size is \(size >> 20) MB, and a minute of writes is now "
                    + "\(perMinute >> 20) MB: when Sluice is away for longer than the backlog holds, "
                    + "every mapped key is read again",
                "CONFIG SET repl-backlog-size \(max(256, wanted >> 19))mb; "
                    + "CONFIG SET repl-backlog-ttl 0")
        ]
    }

    // Where a replica attaches meanwhile, such as Sluice itself, it is measured once more.
    private func bytesPerMinute() async -> Int64? {
        let clock = ContinuousClock()
        for _ in 0..<3 {
            guard let before = try? await reader.info(), let start = before.offset else { break }
            let begin = clock.now
            try? await clock.sleep(for: .seconds(1))
            guard let now = try? await reader.info(), let end = now.offset else { break }
            guard before.countsBytes == now.countsBytes else { continue }
            // Without a backlog nothing counts the stream's bytes; what clients send is about as much.
            let arrived = now.inputBytes - before.inputBytes
            let bytes = max(0, now.countsBytes ? end - start : arrived)
            return Int64(Double(bytes) * (.seconds(60) / (clock.now - begin)))
        }
        return nil
    }

    private func sample() async -> [Finding] {
        var unmapped: [Bytes] = []
        var count = 0
        var deadlines: [Int64] = []
        let databases = Set(configuration.tables.map(\.database))
        for database in databases.sorted() {
            let tables = configuration.tables.filter { $0.database == database }
            guard
                let found = try? await reader.scan(
                    cursor: Array("0".utf8), match: Array("*".utf8), count: 500, in: database)
            else { continue }
            count += found.keys.count
            let mapped = found.keys.filter { key in
                tables.contains { $0.keys.matches(key.span) }
            }
            let names = Set(mapped)
            unmapped += found.keys.filter { !names.contains($0) }
            deadlines += (try? await reader.timesToLive(of: mapped, in: database)) ?? []
        }
        guard count > 0 else { return [] }
        var findings: [Finding] = []
        if let example = unmapped.first {
            let name = String(decoding: example, as: UTF8.self)
            findings.append(
                Finding(
                    level: .ok, subject: "redis.keys",
                    message:
                        "\(unmapped.count) of \(count) sampled keys match no table, such as \(name): "
                        + "they are not settled",
                    hint: "a table with keys that match them, if they should be; "
                        + "`sluice schema --mirror` prints tables for every key"))
        }
        let short = deadlines.filter { .milliseconds($0) < configuration.policy.interval }
        if let shortest = short.min() {
            findings.append(
                warning(
                    "redis.deadlines",
                    "\(short.count) of \(count) sampled keys expire sooner than sync.interval, the "
                        + "soonest in \(shortest) ms: if such a row must be read back, its key may be "
                        + "gone before",
                    "set sync.interval to less than what such keys live"))
        }
        return findings
    }

    private func setting(_ name: String) async -> String? {
        guard let reply = try? await reader.send(["CONFIG", "GET", name]), reply.count == 2 else {
            return nil
        }
        return reply[1]
    }

    /// Says at the start of `run` what the settings put at risk, once Redis can be asked.
    static func log(
        _ configuration: Configuration, _ warn: @Sendable (String, String) -> Void,
    ) async {
        guard let endpoint = try? configuration.endpoint() else { return }
        while !Task.isCancelled {
            if await logOnce(configuration, endpoint, warn) { return }
            try? await ContinuousClock().sleep(for: .seconds(5))
        }
    }

    private static func logOnce(
        _ configuration: Configuration, _ endpoint: RedisEndpoint,
        _ warn: @Sendable (String, String) -> Void,
    ) async -> Bool {
        guard
            let reader = try? await KeyReader.connect(
                to: endpoint, on: MultiThreadedEventLoopGroup.singleton.next(), isExact: false)
        else { return false }
        defer { reader.close() }
        guard let info = try? await reader.info() else { return false }
        let guards = RedisGuards(reader: reader, info: info, configuration: configuration)
        // With keys that match no table, which is no fault, but may be a mistake.
        let measured = await guards.measurements().filter { $0.level == .warning || $0.hint != nil }
        for finding in await guards.settings() + measured {
            warn("\(finding.subject): \(finding.message)", finding.hint ?? "")
        }
        return true
    }
}
