job "lang-functions-numbers" {
  meta {
    a = abs(-4)
    b = ceil(1.1) + floor(1.9)
    c = max(1, 5, 3) - min(2, 8)
    d = pow(2, 8)
    e = log(8, 2)
    f = parseint("ff", 16)
    g = signum(-3)
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
