job "hcl1-repeated-maps" {
  type = "batch",
  meta {
    a = "1"
  }
  meta {
    b = "2"
  }
  group "web" {
    task "main" {
      driver = "raw_exec"
      config {
        command = "/bin/true"
      }
      env {
        A = 1
      }
      env {
        B = 2
      }
    }
  }
}
