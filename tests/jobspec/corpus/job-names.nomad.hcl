job "job-names" {
  id        = "billing/reports"
  name      = "Billing reports"
  region    = "eu"
  namespace = "finance"

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
