"""Test double of one node behind the load balancer: ingress on 80 and 443, API on 6443, supervisor on 9345.

usage: backend.py ADDRESS PEM. Responses hold the node, the request headers and the PROXY protocol header, if any.
"""

import json
import socket
import socketserver
import ssl
import sys
import threading

ADDRESS, PEM = sys.argv[1:]
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CONTEXT.load_cert_chain(PEM)


class Ingress(socketserver.BaseRequestHandler):
    def handle(self):
        connection, proxy = self.request, ""
        if connection.recv(6, socket.MSG_PEEK) == b"PROXY ":
            while not proxy.endswith("\r\n"):
                proxy += connection.recv(1).decode()
        if self.server.server_address[1] == 443:
            connection = CONTEXT.wrap_socket(connection, server_side=True)
        with connection.makefile("rb") as stream:
            while request := stream.readline().decode():
                headers = {}
                while line := stream.readline().decode().strip():
                    name, _, value = line.partition(": ")
                    headers[name.lower()] = value
                response = {"node": ADDRESS, "request": request.strip(), "headers": headers, "proxy": proxy.strip()}
                body = json.dumps(response).encode()
                if headers.get("upgrade") == "websocket":
                    connection.sendall(
                        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
                    )
                    connection.sendall(connection.recv(100))
                    return
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\n"
                    + f"Content-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )


class Server(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(f"{ADDRESS} {self.server.server_address[1]}\n".encode())


class Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


for port, handler in ((80, Ingress), (443, Ingress), (6443, Server), (9345, Server)):
    threading.Thread(target=Listener((ADDRESS, port), handler).serve_forever).start()
