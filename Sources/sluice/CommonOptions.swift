import ArgumentParser
import Foundation
import Logging
import SluiceConfiguration
import SluiceCore
import SluiceEngine
import SluicePostgres
import SluiceRedis
import SluiceSQLite

/// Exit codes, as sysexits.h has them.
enum Sysexits {
    static let data = ExitCode(65)
    static let noInput = ExitCode(66)
    static let unavailable = ExitCode(69)
    static let software = ExitCode(70)
    static let temporary = ExitCode(75)
    static let permission = ExitCode(77)
    static let configuration = ExitCode(78)
}

/// The options that every command on a configuration has.
struct CommonOptions: ParsableArguments {
    @Option(name: .shortAndLong, help: "The configuration file.")
    var config = "sluice.yaml"

    /// The system's certificate authorities, where Debian and others keep them.
    private static var certificates: String? {
        ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"].first {
            FileManager.default.fileExists(atPath: $0)
        }
    }

    /// Reads the file, or says what is wrong with it and exits.
    func load() throws -> Configuration {
        guard let data = FileManager.default.contents(atPath: config) else {
            Terminal.complain(
                "there is no configuration at \(config)",
                hint: "name it with --config; `sluice --help` shows a first one")
            throw Sysexits.noInput
        }
        do {
            let reader = ConfigurationReader(environment: ProcessInfo.processInfo.environment) {
                FileManager.default.contents(atPath: $0).map { String(decoding: $0, as: UTF8.self) }
            }
            var configuration = try reader.read(
                String(decoding: data, as: UTF8.self), file: config)
            // libpq takes its settings from there too.
            let isSet = ProcessInfo.processInfo.environment["PGSSLMODE"] != nil
            if case .postgres(let url) = configuration.database, !isSet {
                configuration.database = .postgres(
                    url: PostgresAddress.verified(url, certificates: Self.certificates))
            }
            return configuration
        } catch {
            Terminal.complain("\(error)")
            throw Sysexits.configuration
        }
    }
}

/// Writes to the standard error.
enum Terminal {
    static func complain(_ text: String, hint: String? = nil) {
        let line = hint.map { "\(text)\n    hint: \($0)" } ?? text
        FileHandle.standardError.write(Data("sluice: \(line)\n".utf8))
    }

    /// Draws a bar over the last one.
    static func showBaseline(_ progress: BaselineProgress) {
        let width = 30
        let share = Double(progress.read) / Double(max(progress.read, progress.keys, 1))
        let filled = progress.isDone ? width : Int(share * Double(width))
        let bar =
            String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled)
        let text =
            progress.isDone
            ? "\rBaseline [\(bar)] done                    \n"
            : "\rBaseline [\(bar)] \(progress.read) of up to \(progress.keys) keys"
        FileHandle.standardError.write(Data(text.utf8))
    }

    static func logger(_ level: Logger.Level = .info) -> Logger {
        LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
        var logger = Logger(label: "sluice")
        logger.logLevel = level
        return logger
    }
}

extension Configuration {
    /// The server that the configuration names.
    func endpoint() throws -> RedisEndpoint {
        guard let endpoint = RedisURL.parse(redis.url, caFile: redis.caFile) else {
            Terminal.complain(
                "redis.url is no address: expected redis://HOST:PORT/DB",
                hint: "or redis+sentinel://HOST:PORT,HOST:PORT/MASTER-NAME, or unix://PATH")
            throw Sysexits.configuration
        }
        return endpoint
    }

    /// How a source that only names keys is followed.
    var marksPolicy: MarksPolicy { MarksPolicy(auditInterval: auditInterval) }

    /// The sink that the configuration names.
    func sink(createsTables: Bool? = nil) -> any Sink {
        let creates = createsTables ?? self.createsTables
        switch database {
        case .sqlite(let path):
            return SQLiteSink(
                path: path, source: name, mappings: tables, createsTables: creates,
                retryAfter: retryAfter)
        case .postgres(let url):
            return PostgresSink(
                url: url, source: name, mappings: tables, createsTables: creates,
                retryAfter: retryAfter, lease: lease)
        }
    }
}

/// Reads the addresses of Redis servers.
enum RedisURL {
    static func parse(_ text: String, caFile: String?) -> RedisEndpoint? {
        if text.hasPrefix("redis+sentinel://") || text.hasPrefix("rediss+sentinel://") {
            return sentinel(text, caFile: caFile)
        }
        guard let components = URLComponents(string: text) else { return nil }
        let user = components.user.flatMap { $0.isEmpty ? nil : $0 }
        let path = components.path
        if components.scheme == "unix" {
            let query = components.queryItems?.first { $0.name == "db" }?.value
            return RedisEndpoint(
                address: .unix(path), user: user, password: components.password,
                database: query.flatMap(Int.init) ?? 0)
        }
        let database = path.isEmpty || path == "/" ? 0 : Int(path.dropFirst())
        guard let database, database >= 0, let host = components.host, !host.isEmpty else {
            return nil
        }
        return RedisEndpoint(
            address: .tcp(host: host, port: components.port ?? 6379), user: user,
            password: components.password, database: database,
            tls: components.scheme == "rediss" ? RedisEndpoint.TLS(caFile: caFile) : nil)
    }

    // Several hosts are more than `URLComponents` takes.
    private static func sentinel(_ text: String, caFile: String?) -> RedisEndpoint? {
        guard let start = text.firstRange(of: "://") else { return nil }
        var rest = text[start.upperBound...]
        var user: [String?] = []
        if let at = rest.lastIndex(of: "@") {
            user = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
                .map { $0.isEmpty ? nil : String($0).removingPercentEncoding }
            rest = rest[rest.index(after: at)...]
        }
        let parts = rest.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2 || parts.count == 3, !parts[1].isEmpty else { return nil }
        var sentinels: [RedisEndpoint.Sentinel] = []
        for host in parts[0].split(separator: ",") {
            let pair = host.split(separator: ":", maxSplits: 1)
            guard let name = pair.first, let port = Int(pair.count == 2 ? pair[1] : "26379"),
                (1...65_535).contains(port)
            else { return nil }
            sentinels.append(RedisEndpoint.Sentinel(host: String(name), port: port))
        }
        guard !sentinels.isEmpty, let database = parts.count == 3 ? Int(parts[2]) : 0 else {
            return nil
        }
        return RedisEndpoint(
            address: .sentinel(sentinels, master: String(parts[1])), user: user.first ?? nil,
            password: user.count == 2 ? user[1] : nil, database: database,
            tls: text.hasPrefix("rediss") ? RedisEndpoint.TLS(caFile: caFile) : nil)
    }
}
