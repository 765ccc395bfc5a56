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
                to: endpoint, on: MultiThreadedEventLoopGroup.singleton.next(),
                isExact: configuration.redis.capture.isExact)
            defer { reader.close() }
            let info = try await reader.info()
            if let refusal = info.refusal(configuration.redis.capture) { throw refusal }
            var findings = [
                Finding(
                    level: .ok, subject: "redis", message: "\(info.name) at \(endpoint.address)",
                    hint: nil)
            ]
            let modes = CaptureModes(reader: reader, info: info, endpoint: endpoint)
            findings += await modes.findings(configuration.redis.capture)
            let guards = RedisGuards(reader: reader, info: info, configuration: configuration)
            findings += await guards.settings() + guards.measurements()
            return findings
        } catch {
            return [
                Finding(level: .failure, subject: "redis", message: error.message, hint: error.hint)
            ]
        }
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
