import ArgumentParser
import Foundation
import SluiceAdmin
import SluiceConfiguration

/// Asks the running instance through its admin listener.
struct AdminClient {
    let configuration: Configuration
    /// The longest that an instance takes which is well, when it need not do anything.
    private static let questionMax = Duration.seconds(10)

    func ask(
        _ method: String, _ path: String, body: Data = Data(),
    ) async throws -> (status: Int, body: Data) {
        // What listens on all addresses listens on this machine's own too.
        let isAny = configuration.adminHost == "0.0.0.0"
        let host = isAny ? "127.0.0.1" : configuration.adminHost
        let exchange = AdminExchange(host: host, port: configuration.adminPort)
        let answer: (status: Int, body: [UInt8])
        do {
            answer = try await exchange.ask(
                method, path, token: configuration.adminToken, body: Array(body),
                atMost: method == "GET" ? Self.questionMax : nil)
        } catch {
            let address = "http://\(host):\(configuration.adminPort)\(path)"
            Terminal.complain(
                "no instance answers at \(address)",
                hint: "is `sluice run` running with this configuration (admin.listen)?")
            throw Sysexits.unavailable
        }
        guard answer.status != 401 else {
            Terminal.complain(
                "the instance at \(host):\(configuration.adminPort) wants another token",
                hint: "admin.token must be the one that `sluice run` was started with")
            throw Sysexits.permission
        }
        return (answer.status, Data(answer.body))
    }
}
