import ArgumentParser
import Foundation
import NIOPosix
import SluiceConfiguration
import SluiceCore
import SluiceRedis

struct CheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Find out what would go wrong, without changing rows.",
        discussion: """
            Exits with 0 when nothing would fail; warnings are printed. It makes Sluice's own \
            tables, as `run` does; start it while no instance writes.
            """)

    /// One finding.
    struct Finding: Codable {
        enum Level: String, Codable {
            case ok, warning, failure
        }
        let level: Level
        let subject: String
        let message: String
        let hint: String?
    }

    @OptionGroup var options: CommonOptions
    @Flag(help: "Print JSON.") var json = false

    func run() async throws {
        let configuration = try options.load()
        var findings = await redis(try configuration.endpoint(), configuration)
        findings += await database(configuration)
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            print(String(decoding: try encoder.encode(findings), as: UTF8.self))
        } else {
            for finding in findings { print(Self.text(finding)) }
        }
        if findings.contains(where: { $0.level == .failure }) { throw Sysexits.unavailable }
    }

    private static func text(_ finding: Finding) -> String {
        let line = "\(finding.level.rawValue.uppercased()) \(finding.subject): \(finding.message)"
        return finding.hint.map { "\(line)\n    hint: \($0)" } ?? line
    }

    // MARK: Redis

    private func redis(
        _ endpoint: RedisEndpoint, _ configuration: Configuration,
    ) async -> [Finding] {
        do throws(RedisError) {
            let reader = try await KeyReader.connect(
                to: endpoint, on: MultiThreadedEventLoopGroup.singleton.next())
            defer { reader.close() }
            let info = try await reader.info()
            if let refusal = info.refusal { throw refusal }
            var findings = [
                Finding(
                    level: .ok, subject: "redis", message: "\(info.name) at \(endpoint.address)",
                    hint: nil)
            ]
            findings += try await replication(reader, endpoint)
            findings += await settings(reader, info, configuration)
            return findings
        } catch {
            return [
                Finding(level: .failure, subject: "redis", message: error.message, hint: error.hint)
            ]
        }
    }

    /// Whether this user may follow: asked without beginning to.
    private func replication(
        _ reader: KeyReader, _ endpoint: RedisEndpoint,
    ) async throws(RedisError) -> [Finding] {
        let user = endpoint.user ?? "default"
        var findings: [Finding] = []
        for command in [["PSYNC", "?", "-1"], ["REPLCONF", "ACK", "0"], ["PING"]] {
            let reply: [String]?
            do throws(RedisError) {
                reply = try await reader.send(["ACL", "DRYRUN", user] + command)
            } catch {
                // The user may not ask; then the start of `run` will say.
                return []
            }
            guard let text = reply?.first, text != "OK" else { continue }
            findings.append(
                Finding(
                    level: .failure, subject: "redis.user",
                    message: "the user \(user) may not use \(command[0])",
                    hint: "ACL SETUSER \(user) +psync +replconf +ping; docs/permissions.md"))
        }
        return findings
    }

    private func settings(
        _ reader: KeyReader, _ info: ServerInfo, _ configuration: Configuration,
    ) async -> [Finding] {
        var findings: [Finding] = []
        func warn(_ subject: String, _ message: String, _ hint: String) {
            findings.append(
                Finding(level: .warning, subject: subject, message: message, hint: hint))
        }
        if info["aof_enabled"] == "0" {
            warn(
                "redis.persistence",
                "without an AOF, a crash of Redis loses what Sluice had not received",
                "CONFIG SET appendonly yes")
        }
        let deletes = configuration.tables.contains { $0.removal.onEvict == .delete }
        if let policy = info["maxmemory_policy"], policy != "noeviction",
            info["maxmemory"] != "0", deletes
        {
            warn(
                "redis.eviction",
                "maxmemory-policy is \(policy), and a table deletes the rows of evicted keys",
                "CONFIG SET maxmemory-policy noeviction, or on_evict: keep for such tables")
        }
        if let size = info["repl_backlog_size"].flatMap(Int.init), size < 64 << 20 {
            warn(
                "redis.backlog",
                "repl-backlog-size is \(size >> 20) MB: when Sluice is away for longer than that "
                    + "holds, every mapped key is read again",
                "CONFIG SET repl-backlog-size 256mb; CONFIG SET repl-backlog-ttl 0")
        }
        return findings
    }

    // MARK: Database

    private func database(_ configuration: Configuration) async -> [Finding] {
        let sink = configuration.sink()
        do throws(SinkError) {
            let state = try await sink.open()
            await sink.close()
            let position = state.checkpoint.position.map { "position \($0)" } ?? "no position yet"
            return [
                Finding(
                    level: .ok, subject: "database",
                    message: "\(configuration.tables.count) tables fit; \(position)", hint: nil)
            ]
        } catch {
            return [
                Finding(
                    level: error.code == "sink.locked" ? .warning : .failure, subject: "database",
                    message: "\(error.message) (\(error.code))", hint: error.hint)
            ]
        }
    }
}
