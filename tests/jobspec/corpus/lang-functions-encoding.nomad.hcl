job "lang-functions-encoding" {
  meta {
    a = base64encode("hello")
    b = base64decode("aGVsbG8=")
    c = jsonencode(csvdecode("a,b\n1,2\n"))
    d = jsondecode("{\"k\": \"v\"}").k
    e = jsonencode({ html = "<b>" })
    f = urlencode("a b&c")
    g = yamldecode("k: [1, 2]").k[1]
    h = yamlencode({ k = ["a"] })
  }

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
